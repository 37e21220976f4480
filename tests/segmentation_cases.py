"""Random class maps with void, absent classes and empty images, and their figures from the definitions. Not a test itself."""

import numpy as np

CLASSES = 5


def blobs(rng, height, width, classes):
    """A map of patches, of some of the classes."""
    kinds = rng.permutation(classes)[: rng.integers(1, classes + 1)]
    low = rng.integers(0, len(kinds), (-(-height // 6), -(-width // 6)))
    return kinds[np.kron(low, np.ones((6, 6), int))[:height, :width]]


def random_case(seed, images=2, canvas=(16, 21)):
    """Logits of half the size of the canvas, labels, valid pixels and sizes of a few images."""
    rng = np.random.default_rng(seed)
    height, width = canvas
    logits = rng.normal(size=(images, height // 2, (width + 1) // 2, CLASSES))
    label = np.stack([blobs(rng, height, width, CLASSES - seed % 2) for _ in range(images)])
    size = np.stack([rng.integers(9, side + 1, images) for side in canvas], 1)
    near = label[:, ::2, ::2][:, : height // 2]
    logits += 3 * (np.arange(CLASSES) == near[..., None]) * rng.choice([0, 1, 3])
    rows, columns = np.arange(height), np.arange(width)
    valid = (rows[:, None] < size[:, :1, None]) & (columns < size[:, 1:, None])
    valid &= rng.random(valid.shape) < rng.choice([1, 0.95])
    valid[:, :4, :7] &= rng.random() < 0.5
    if seed % 5 == 0:
        valid[1] = False
    label[~valid] = rng.choice([0, 255])
    return logits, label, valid, size


def resized(plane, height, width):
    """Bilinear, as the matrix of the triangle around each place; centres at halves, the border goes on."""

    def weights(cells, pixels):
        place = np.clip((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0, cells - 1)
        return np.maximum(1 - np.abs(place[:, None] - np.arange(cells)), 0)

    return weights(plane.shape[0], height) @ plane @ weights(plane.shape[1], width).T


def predicted(logits, canvas):
    planes = [np.stack([resized(one[..., k], *canvas) for k in range(CLASSES)], -1) for one in logits]
    return np.stack(planes).argmax(-1)


def figures(found, label, valid, size):
    """The figures from loops over pixels."""
    confusion = np.zeros((CLASSES, CLASSES), int)
    for i, y, x in np.argwhere(valid):
        confusion[label[i, y, x], found[i, y, x]] += 1
    expected = {"pixel_accuracy": confusion.trace() / confusion.sum() if confusion.sum() else np.nan}
    contours, bands = {k: [] for k in range(CLASSES)}, np.zeros((CLASSES, 3), int)
    for i, (height, width) in enumerate(size):
        maps = [np.where(valid[i], each[i], -1)[:height, :width] for each in (found, label)]
        edges, near = [contour(each) for each in maps], [band(each) for each in maps]
        for k in range(CLASSES):
            p, t = ({(y, x) for y, x in points if each[y, x] == k} for points, each in zip(edges, maps, strict=True))
            if p or t:
                contours[k].append(f1(p, t, 0.0075 * np.hypot(height, width)))
            p, t = ({(y, x) for y, x in points if each[y, x] == k} for points, each in zip(near, maps, strict=True))
            bands[k] += [len(p & t), len(p | t), 0]
    named = {}
    for k in range(CLASSES):
        both, either = confusion[k, k], confusion[k].sum() + confusion[:, k].sum() - confusion[k, k]
        named[f"IoU/{k}"] = both / either if either else np.nan
        named[f"Dice/{k}"] = 2 * both / (either + both) if either else np.nan
        named[f"boundary_F1/{k}"] = sum(contours[k]) / len(contours[k]) if contours[k] else np.nan
        named[f"boundary_IoU/{k}"] = bands[k, 0] / bands[k, 1] if bands[k, 1] else np.nan
    for name, metric in (("mIoU", "IoU"), *((m, m) for m in ("Dice", "boundary_F1", "boundary_IoU"))):
        known = [named[f"{metric}/{k}"] for k in range(CLASSES) if not np.isnan(named[f"{metric}/{k}"])]
        expected[name] = sum(known) / len(known) if known else np.nan
    return expected | named


def contour(map):
    """Pixels beside one of another label; -1 is void."""
    height, width = map.shape
    found = []
    for y, x in np.argwhere(map >= 0):
        beside = ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
        others = [map[j, i] for j, i in beside if 0 <= j < height and 0 <= i < width]
        if any(other not in (map[y, x], -1) for other in others):
            found.append((y, x))
    return found


def f1(p, t, reach):
    if not p or not t:
        return 0.0
    p, t = (np.array(sorted(points)) for points in (p, t))
    close = np.hypot(*(p[:, None] - t).transpose(2, 0, 1)) <= reach
    precision, recall = close.any(1).mean(), close.any(0).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def band(map):
    """What erosion by a square takes from the segments, all void counted in; outside the image is nothing."""
    height, width = map.shape
    reach, found = max(1, round(0.02 * np.hypot(height, width))), []
    for y, x in np.argwhere(map >= 0):
        inside = reach <= y < height - reach and reach <= x < width - reach
        square = map[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
        if not inside or not np.isin(square, [map[y, x], -1]).all():
            found.append((y, x))
    return found
