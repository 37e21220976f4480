"""Occlusion by objects of other images: what it hides, and of what; targets stay."""

import numpy as np
import pytest

from jaxvision.data import placement, streams, target
from jaxvision.data.source import Annotations, Example, Source
from jaxvision.errors import ConfigError, DataError
from jaxvision.trust import occluded
from jaxvision.trust.corrupted import corrupted
from jaxvision.trust.corruption_occlusion import FRACTIONS
from jaxvision.types import WHOLE, PackedMasks, Shard

SIDE, COUNT = 96, 10


def box_of(index):
    return [10 + index, 20, 40 + index, 50 + index]


def image_of(index):
    """A white image with a coloured object."""
    image = np.full((SIDE, SIDE, 3), 255, np.uint8)
    x0, y0, x1, y1 = box_of(index)
    image[y0:y1, x0:x1] = 20 * index
    return image


def stream(batch_size=4, sizes=COUNT):
    def read(indices):
        objects = [
            Annotations(np.float32([box_of(i)]), np.zeros(1, np.int32), np.zeros(1, bool), np.full(1, 900, np.float32))
            for i in indices
        ]
        return [Example(image_of(i), objects=each) for i, each in zip(indices, objects, strict=True)]

    source = Source(sizes, read, lambda: np.zeros(sizes, np.int64), ("thing",), str, "made")
    return streams.evaluation(
        lambda: source, placer=placement.letterbox(SIDE), batch_size=batch_size, target=target.objects(3)
    )


def shown(severity, batch_size=4, shard=WHOLE, seed=0):
    found = {}
    for batch in corrupted(stream(batch_size), "object_occlusion", severity, seed).batches(0, shard):
        for index, valid, image, boxes in zip(batch.index, batch.valid, batch.image, batch.target.boxes, strict=True):
            if valid:
                found[int(index)] = np.asarray(image), boxes[0]
    return found


def test_objects_of_other_images_hide_a_fraction_and_targets_stay():
    for severity in (1, 5):
        hidden = []
        for index, (image, box) in shown(severity).items():
            assert box.tolist() == box_of(index)
            changed = (image != image_of(index)).any(-1)
            levels = set(np.unique(image[changed]).tolist())
            assert levels <= {20 * other for other in range(COUNT) if other != index}
            hidden.append(changed.mean())
            assert 0 < hidden[-1] <= FRACTIONS[severity - 1] + 0.01
        assert np.mean(hidden) > 0.5 * FRACTIONS[severity - 1]


def test_an_image_is_the_same_in_any_batch_and_on_any_process():
    whole = shown(3)
    parts = [shown(3, shard=Shard(number, 2)) for number in (0, 1)]
    for other in (shown(3, batch_size=10), parts[0] | parts[1]):
        assert other.keys() == whole.keys()
        assert all((other[index][0] == image).all() for index, (image, _) in whole.items())
    assert any((image != whole[index][0]).any() for index, (image, _) in shown(3, seed=1).items())


def test_a_piece_with_a_mask_is_cut_out_at_it():
    (batch, *_) = stream().batches(0)
    masks = np.zeros((4, 3, SIDE, SIDE), bool)
    masks[:, 0, 20:50, 15:25] = True
    for form in (masks, PackedMasks(np.packbits(masks, axis=-1), SIDE)):
        masked = batch.replace(target={"things": batch.target.replace(masks=form)})
        pieces = occluded._pool(stream()._replace(batches=lambda step, shard=WHOLE: iter([masked])))  # noqa: B023
        assert [piece.index for piece in pieces] == [0, 1, 2, 3]
        assert [int(piece.shape.sum()) for piece in pieces] == [300] * 4
    piece = occluded.Piece(0, np.full((10, 20, 3), 7, np.uint8), np.tile(np.arange(20) < 10, (10, 1)))
    image = np.full((60, 60, 3), 255, np.uint8)
    occluded.paste(image, piece, 401 / 3600, (0.0, 1.0))
    rows, columns = np.nonzero((image == 7).all(-1))
    assert len(rows) == 400
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (0, 19, 20, 39)


def test_data_without_objects_are_refused():
    labelled = stream()
    spec = labelled.spec.replace(target=None)
    with pytest.raises(
        ConfigError, match="object_occlusion cuts objects out of other images: it needs data with boxes"
    ):
        corrupted(labelled._replace(spec=spec), "object_occlusion", 1)
    with pytest.raises(DataError, match="no other image has an object of 64 pixels"):
        list(corrupted(stream(batch_size=1, sizes=1), "object_occlusion", 1).batches(0))
