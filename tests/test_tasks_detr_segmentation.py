"""DETR's masks: all of it against transformers' figures in tests/golden, attention against SciPy, names and predictions."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import parity_detr_segmentation as parity
import pytest
from detectors import make_batch, small_detr_segmentation, variables_of
from numpy.testing import assert_allclose, assert_array_equal
from parity_networks import filled, shapes_of
from scipy.special import softmax

from jaxvision import optimize
from jaxvision.pretrained import coco
from jaxvision.pretrained.detr import panoptic_sources, segmentation_sources
from jaxvision.pretrained.strict import load
from jaxvision.tasks.detr_segmentation import AttentionMaps, MaskHead, detr_segmentation_resnet50, segmenting

GOLDEN = Path(__file__).parent / "golden" / "detr_segmentation.npz"


@functools.cache
def shapes_of_r50():
    network = detr_segmentation_resnet50(133)
    given = (jnp.zeros((1, 64, 64, 3)), jnp.int32([[64, 64]]))
    return jax.eval_shape(lambda: network.init(jax.random.key(0), *given, train=False))


@pytest.mark.slow
def test_all_of_it_equals_transformers(float64):
    with np.load(GOLDEN) as golden:
        shapes = shapes_of(golden)
        parity.assert_same(parity.golden_of(shapes, parity.figures(shapes, parity.SMALL)), golden)


def test_every_array_of_transformers_file_is_used_once(float64):
    with np.load(GOLDEN) as golden:
        shapes = shapes_of(golden)
    network, given = segmenting(parity.parity_detr.network_of(parity.SMALL)), parity.batch()
    spec = jax.eval_shape(lambda: network.init(jax.random.key(0), given.image, given.size, train=False))
    loaded = load(segmentation_sources(spec), {name: np.zeros(shape) for name, shape in shapes.items()}, spec)
    assert loaded.report.numbers == sum(leaf.size for leaf in jax.tree.leaves(spec))


def test_detr_r50_has_the_published_mask_head():
    spec = shapes_of_r50()
    masks = {name: tree for name, tree in spec["params"].items() if name != "detr"}
    assert sum(leaf.size for leaf in jax.tree.leaves(masks)) == 1_333_657
    channels = [masks["mask_head"][f"conv{n}"]["kernel"].shape[-1] for n in range(1, 6)]
    assert channels == [264, 128, 64, 32, 16]
    assert [masks["mask_head"][f"adapter{n}"]["kernel"].shape[2] for n in (1, 2, 3)] == [1024, 512, 256]


def test_of_the_250_classes_133_are_kept():
    head = "detr.class_labels_classifier."
    found = panoptic_sources(shapes_of_r50())
    weights = {"weight": np.arange(251.0)[:, None] + np.zeros(256), "bias": np.arange(251.0)}
    for leaf, name in (("kernel", "weight"), ("bias", "bias")):
        source = found["params", "detr", "classes", leaf]
        assert source.name == head + name
        assert_array_equal(source.convert(weights[name])[..., -54:][..., :2].reshape(-1)[:2], [92, 93])
        assert source.convert(weights[name]).shape[-1] == 134
    assert len(coco.PANOPTIC_CLASSES) == len(coco.PANOPTIC_IDS) == len(coco.THINGS) == 133
    assert sum(coco.THINGS) == 80


def test_attention_is_normalised_over_cells_and_heads_together(float64):
    random = np.random.RandomState(0)
    queries, memory = random.standard_normal((1, 3, 6)), random.standard_normal((1, 2, 4, 6))
    valid = np.ones((1, 2, 4), bool)
    valid[0, 1, 2:] = False
    layer, given = AttentionMaps(2, jnp.float64), tuple(map(jnp.asarray, (queries, memory, valid)))
    params = filled(jax.eval_shape(lambda: layer.init(jax.random.key(0), *given)))
    found = np.asarray(layer.apply(params, *given))
    asked, keys = (
        x[0] @ np.asarray(params["params"][name]["kernel"]) + np.asarray(params["params"][name]["bias"])
        for x, name in ((queries, "query"), (memory, "key"))
    )
    for q in range(3):
        logits = np.stack([keys[..., part] @ asked[q, part] / np.sqrt(3) for part in (slice(0, 3), slice(3, 6))], -1)
        logits[~valid[0]] = -np.inf
        assert_allclose(found[0, q], softmax(logits), rtol=1e-9)
    assert_allclose(found.sum((2, 3, 4)), 1)
    assert not found[0, :, ~valid[0]].any()


def test_widths_must_fit():
    given = tuple(map(jnp.zeros, ((1, 3, 6), (1, 2, 4, 6)))) + (jnp.ones((1, 2, 4), bool),)
    with pytest.raises(ValueError, match="6 channels do not form 4 heads"):
        jax.eval_shape(lambda: AttentionMaps(4).init(jax.random.key(0), *given))
    maps = [jnp.zeros((1, 4, 8, 5)), jnp.zeros((1, 8, 16, 5))]
    head = MaskHead(width=4)
    with pytest.raises(ValueError, match="width=4 of the mask head can't be halved 3 times"):
        jax.eval_shape(lambda: head.init(jax.random.key(0), jnp.zeros((1, 2, 4, 6)), jnp.zeros((1, 3, 2, 4, 2)), maps))


@pytest.mark.slow
def test_masks_are_those_of_the_queries_that_were_found(float64):
    task, batch = small_detr_segmentation(jnp.float64), make_batch()
    variables = variables_of(task, batch)
    found = jax.device_get(jax.jit(task.predict)(variables, batch))
    assert found.masks.extent == (32, 32)
    again = jax.device_get(jax.jit(task.predict)(variables, batch.replace(image=batch.image[::-1])))
    assert_allclose(again.masks.logits[::-1], found.masks.logits, rtol=0, atol=1e-9)
    assert (np.abs(np.diff(found.masks.logits, axis=1)).max((2, 3)) > 0).all()


@pytest.mark.slow
def test_a_frozen_detr_has_no_gradient_and_its_masks_have(float64):
    task, batch = optimize.freeze(small_detr_segmentation(jnp.float64), ("detr/.*",)), make_batch()
    variables = task.init(jax.random.key(0), batch)
    assert set(variables["params"]) == {"attention", "mask_head"}
    rest = {name: tree for name, tree in variables.items() if name != "params"}
    loss = lambda params: task.loss({"params": params, **rest}, batch, jax.random.key(0))[0]
    gradient = jax.jit(jax.grad(loss))(variables["params"])
    assert all(
        np.abs(x).max() > 0 for path, x in jax.tree_util.tree_leaves_with_path(gradient) if "bias" not in str(path)
    )
