"""Mask R-CNN against torchvision: the whole network, its targets and its masks in the file: python -m pytest -m parity."""

import jax
import jax.numpy as jnp
import numpy as np
import parity_rcnn
import pytest
from mask_cases import shapes

from jaxvision.masks.paste import run_lengths
from jaxvision.masks.runs import decode
from jaxvision.ops.masks import targets_in_boxes
from jaxvision.types import BoxMasks, Canvas

pytestmark = pytest.mark.parity


def canvas_of(height, width):
    return Canvas(np.zeros((height, width, 3), np.uint8), (height, width), (height, width))


def noted(monkeypatch, module, name):
    """Arguments and results of a function of torchvision's from now on."""
    function, calls = getattr(module, name), []

    def noting(*args):
        found = function(*args)
        calls.append((args, found))
        return found

    monkeypatch.setattr(module, name, noting)
    return calls


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_mask_rcnn_equals_torchvisions(float64, capsys, monkeypatch, backbone):
    from torchvision.models.detection import roi_heads, transform

    projected = noted(monkeypatch, roi_heads, "project_masks_on_boxes")
    pasted = noted(monkeypatch, transform, "paste_masks_in_image")
    names, theirs = parity_rcnn.figures_torch("mask_rcnn", backbone)
    ours = parity_rcnn.figures("mask_rcnn", backbone, names)
    errors = parity_rcnn.errors_of(ours, theirs)
    assert len(projected) == len(pasted) == 2

    errors["targets"] = 0.0
    for (masks, boxes, match, size), found in projected:
        arrays = [jnp.asarray(np.asarray(x)) for x in (masks > 0, match, boxes)]
        targets = targets_in_boxes(arrays[0], arrays[1].astype(jnp.int32), arrays[2], size, "torchvision")
        errors["targets"] = max(errors["targets"], np.abs(targets - found.numpy()).max())
        assert 0.1 < found.mean() < 0.9

    detected, different, on = ours["predicted"], 0, 0
    errors["mask probabilities"] = 0.0
    for i, ((probabilities, _, size), _) in enumerate(pasted):
        rows = np.flatnonzero(detected.valid[i])
        masks = jax.tree.map(lambda x: x[i], detected.masks)  # noqa: B023
        difference = np.abs(masks.probabilities[rows] - probabilities[:, 0].numpy()).max()
        errors["mask probabilities"] = max(errors["mask probabilities"], difference)
        found = np.stack([decode(runs) for runs in run_lengths(masks, rows, canvas_of(*size))])
        expected = theirs["predicted"][i]["masks"][:, 0].numpy() > 0.5
        different, on = different + (found != expected).sum(), on + expected.sum()
    with capsys.disabled():
        counts = [len(labels) for _, labels, _ in theirs["detections"]]
        print(f"\nmask_rcnn {backbone}, {counts} detections; losses {theirs['losses']}; largest errors:")
        print("  ".join(f"{name} {error:.1e}" for name, error in errors.items()))
        print(f"pixels of masks in the file that differ: {different} of {on} that are on")
    assert on > 1000
    assert different == 0
    assert max(error for name, error in errors.items() if name != "gradient") < 1e-7
    assert errors["gradient"] < 1e-6


def boxes_of_all_kinds(random, count, height, width):
    """Boxes inside, across and outside the border, below one pixel and turned inside out."""
    centre = random.uniform(-0.2, 1.2, (count, 2)) * [width, height]
    sides = np.exp(random.uniform(np.log(0.05), np.log(1.5 * max(height, width)), (count, 2)))
    boxes = np.concatenate([centre - sides / 2, centre + sides / 2], 1)
    boxes[::9] = np.round(boxes[::9])
    boxes[1::9] = boxes[1::9][:, [2, 1, 0, 3]]
    boxes[2::9] = boxes[2::9][:, [0, 3, 2, 1]]
    return boxes


def pasted_by_torchvision(masks, boxes, size):
    """The pasted masks, above the threshold; None where torchvision raises an error: it takes -4 for a place in the image."""
    import torch
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    for mask, box in zip(torch.from_numpy(masks), torch.from_numpy(boxes), strict=True):
        try:
            yield paste_masks_in_image(mask[None, None], box[None], size)[0, 0].numpy() > 0.5
        except RuntimeError as error:
            if "must match the existing size" not in str(error):
                raise
            yield None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pasted_masks_equal_torchvisions_bit_for_bit(capsys, dtype):
    random, counts = np.random.default_rng(0), dict.fromkeys(("compared", "pixels on", "no answer"), 0)
    for size in ((60, 80), (200, 161), (480, 640)):
        boxes = boxes_of_all_kinds(random, 300, *size).astype(dtype)
        soft = random.uniform(0, 1, (len(boxes), 28, 28))
        ties = shapes(len(boxes), 28, seed=size[0]), np.round(4 * soft) / 4  # values of 0.5 but for the last bit
        for masks in (soft, *(ties if dtype == np.float32 else ())):
            masks = masks.astype(dtype)
            given = BoxMasks(masks, boxes, "torchvision")
            ours = run_lengths(given, range(len(boxes)), canvas_of(*size))
            for box, runs, expected in zip(boxes, ours, pasted_by_torchvision(masks, boxes, size), strict=True):
                found = decode(runs)
                if expected is None:
                    counts["no answer"] += 1
                    assert not found.any(), box
                    continue
                np.testing.assert_array_equal(found, expected, err_msg=str(box))
                counts["compared"], counts["pixels on"] = counts["compared"] + 1, counts["pixels on"] + expected.sum()
    with capsys.disabled():
        print(f"\npasted masks in {np.dtype(dtype)}, all equal to torchvision's: {counts}")
    assert counts["compared"] > (1500 if dtype == np.float32 else 500)
    assert counts["pixels on"] > 3e5


def test_the_distributed_network_has_our_names_and_number_of_parameters():
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    from jaxvision.pretrained.torchvision_detection import mask_rcnn_sources
    from jaxvision.tasks.mask_rcnn import mask_rcnn_resnet50_fpn

    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    trained = [x for name, x in model.named_parameters() if "bn" not in name and "downsample.1" not in name]
    assert sum(parameter.numel() for parameter in trained) == 44_401_393  # those of the published one, its norms frozen
    network = mask_rcnn_resnet50_fpn(90)
    spec = jax.eval_shape(
        lambda: network.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), jnp.zeros((1, 1, 4)), train=False)
    )
    wanted = {source.name for source in mask_rcnn_sources(spec).values()}
    assert wanted == {name for name in model.state_dict() if not name.endswith("num_batches_tracked")}
