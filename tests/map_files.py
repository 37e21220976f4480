"""Writes the same small dataset of class maps as a folder, as VOC, as Cityscapes and as COCO panoptic."""

import json

import numpy as np
from data_encoding import encoded, smooth
from PIL import Image

SIZES = ((40, 60), (48, 32), (30, 30))
"""Heights and widths."""
REGIONS = {
    0: [(1, 1, (4, 5, 20, 25)), (1, 2, (22, 8, 40, 30)), (2, 3, (45, 2, 58, 38))],
    1: [(2, 1, (3, 3, 30, 40))],
    2: [],
}
"""By image: class (1 or 2), number of the object, x0 y0 x1 y1; later ones are in front, all else is of class 0."""
BORDER = 2
"""Pixels around each object that have no class."""


def regions(number):
    """Class map and map of objects, 255 for none."""
    labels, objects = (np.zeros(SIZES[number], np.uint8) for _ in range(2))
    for label, object, (x0, y0, x1, y1) in REGIONS[number]:
        for map, value in ((labels, label), (objects, object)):
            map[max(y0 - BORDER, 0) : y1 + BORDER, max(x0 - BORDER, 0) : x1 + BORDER] = 255
            map[y0:y1, x0:x1] = value
    return labels, objects


def palette_png(map):
    """A map whose pixels are indices of a palette in which no colour is its index."""
    image = Image.fromarray(map, "P")
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    return encoded(image)


def image_bytes(number):
    return encoded(smooth(*SIZES[number], seed=number))


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_map_folder(root, png=palette_png):
    for number in range(len(SIZES)):
        put(root / "images" / "deep" / f"{number:03d}.png", image_bytes(number))
        put(root / "masks" / "deep" / f"{number:03d}.png", png(regions(number)[0]))
    (root / "classes.txt").write_text("ground\ncat\ndog\n")
    return root


def write_voc_maps(root):
    year = root / "VOC2012"
    for number in range(len(SIZES)):
        put(year / "JPEGImages" / f"{number:03d}.png", image_bytes(number))
        for folder, map in zip(("SegmentationClass", "SegmentationObject"), regions(number), strict=True):
            put(year / folder / f"{number:03d}.png", palette_png(map))
    put(year / "ImageSets" / "Segmentation" / "train.txt", b"002\n000\n001\n")
    put(year / "ImageSets" / "Segmentation" / "val.txt", b"001\n")
    return year


CITY = {0: 7, 1: 26, 2: 24}
"""Road, car and person: ids of the three classes."""


def city_maps(number):
    """`labelIds`, `labelTrainIds` and `instanceIds`; the border is ego vehicle, the second car of the first image a group."""
    labels, objects = regions(number)
    ids, train = np.full(labels.shape, 1, np.uint8), np.full(labels.shape, 255, np.uint8)
    for label, id in CITY.items():
        ids[labels == label] = id
        train[labels == label] = {7: 0, 26: 13, 24: 11}[id]
    instances = ids.astype(np.uint16)
    for label, object, _ in REGIONS[number]:
        if (number, object) != (0, 2):
            instances[objects == object] = 1000 * CITY[label] + object
    return ids, train, instances


def write_cityscapes(root):
    for number in range(len(SIZES)):
        city = ("aachen", "bonn")[number % 2]
        put(root / "leftImg8bit" / "train" / city / f"{city}_{number}_leftImg8bit.png", image_bytes(number))
        for kind, map in zip(("labelIds", "labelTrainIds", "instanceIds"), city_maps(number), strict=True):
            put(root / "gtFine" / "train" / city / f"{city}_{number}_gtFine_{kind}.png", encoded(map))
    return root


CATEGORIES = [
    {"id": 200, "name": "grass", "isthing": 0},
    {"id": 3, "name": "cat", "isthing": 1},
    {"id": 17, "name": "dog", "isthing": 1},
]
BY_CLASS = {0: 200, 1: 3, 2: 17}


def segment_id(number, object):
    return 70_000 * (object + 1) + 300 * number + 7


def panoptic_png(number):
    labels, objects = regions(number)
    ids = np.zeros(labels.shape, np.int64)
    ids[labels == 0] = segment_id(number, 0)
    for _, object, _ in REGIONS[number]:
        ids[objects == object] = segment_id(number, object)
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)


def panoptic_content():
    images, annotations = [], []
    for number, (height, width) in reversed(list(enumerate(SIZES))):
        id = 10 + 7 * number
        images.append({"id": id, "file_name": f"{number:03d}.png", "height": height, "width": width})
        labels, objects = regions(number)
        segments = [(0, 0, labels == 0), *((label, object, objects == object) for label, object, _ in REGIONS[number])]
        infos = []
        for label, object, on in segments:
            y, x = np.nonzero(on)
            box = [int(x.min()), int(y.min()), int(x.max() - x.min() + 1), int(y.max() - y.min() + 1)]
            info = {
                "id": segment_id(number, object),
                "category_id": BY_CLASS[label],
                "bbox": box,
                "area": int(on.sum()),
            }
            infos.append({**info, "iscrowd": int((number, object) == (0, 2))})
        annotations.append({"image_id": id, "file_name": f"{number:03d}.png", "segments_info": infos})
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}


def write_panoptic(root, content=None):
    """`root/annotations/panoptic_val2017.json` and the folder of its maps; images in `root/val2017`."""
    path = root / "annotations" / "panoptic_val2017.json"
    for number in range(len(SIZES)):
        put(root / "val2017" / f"{number:03d}.png", image_bytes(number))
        put(path.with_suffix("") / f"{number:03d}.png", encoded(panoptic_png(number)))
    path.write_text(json.dumps(panoptic_content() if content is None else content))
    return path
