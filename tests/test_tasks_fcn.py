"""FCN and DeepLabV3: published shapes, what upsampling does, where scores lie."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import parity_segmentation
import pytest
from detectors import variables_of
from numpy.testing import assert_allclose
from parity_networks import parameter_count, shapes_of, spec_of
from segmenters import EVERY, make_batch

from jaxvision.nn import vgg
from jaxvision.nn.fpn import Backbone
from jaxvision.tasks import segmentation
from jaxvision.tasks.deeplab import deeplabv3_resnet50
from jaxvision.tasks.fcn import CROPS, SkipFCN, fcn8s, fcn16s, fcn32s, fcn_resnet50, upsampled


@pytest.mark.parametrize(
    ("network", "count"),
    [
        pytest.param(fcn_resnet50, 35_322_218, marks=pytest.mark.slow),
        (deeplabv3_resnet50, 42_004_074),
        (fcn32s, 134_346_581),
        (fcn16s, 134_357_354),
        (fcn8s, 134_362_751),
    ],
)
def test_the_number_of_parameters_is_the_published_one(network, count):
    assert parameter_count(network(21), 64) == count


@pytest.mark.slow
def test_an_auxiliary_head_can_be_left_out():
    for network in (fcn_resnet50, deeplabv3_resnet50):
        spec = spec_of(network(21, auxiliary=False), (1, 64, 64, 3))
        assert set(spec["params"]) == {"backbone", "head"}
        assert isinstance(network(21).backbone, Backbone)


@pytest.mark.slow
@pytest.mark.parametrize("name", parity_segmentation.GOLDEN)
def test_logits_losses_and_gradients_equal_torchs(float64, name):
    with np.load(Path(__file__).parent / "golden" / f"{name}.npz") as golden:
        shapes = shapes_of(golden)
        found = parity_segmentation.golden_of(shapes, parity_segmentation.figures(name, shapes))
        parity_segmentation.assert_same(found, golden)


def transposed(scores, factor):
    """A transposed convolution with the authors' bilinear kernel (surgery.py, upsample_filt), score by score."""
    side = 2 * factor
    filt = np.array([1 - abs(i - (factor - 0.5)) / factor for i in range(side)])
    height, width, count = scores.shape
    found = np.zeros(((height - 1) * factor + side, (width - 1) * factor + side, count))
    for y, x in np.ndindex(height, width):
        place = slice(y * factor, y * factor + side), slice(x * factor, x * factor + side)
        found[place] += np.outer(filt, filt)[..., None] * scores[y, x]
    return found


@pytest.mark.parametrize(("factor", "start", "size"), [(2, 0, (10, 14)), (8, 31, (9, 20)), (32, 19, (75, 50))])
def test_upsampling_is_a_transposed_convolution(float64, factor, start, size):
    scores = np.random.default_rng(0).normal(size=(2, 4, 6, 3))
    found = upsampled(jnp.asarray(scores), factor, start, size)
    for ours, each in zip(found, scores, strict=True):
        expected = transposed(each, factor)[start : start + size[0], start : start + size[1]]
        assert_allclose(ours, expected, rtol=0, atol=1e-14)


def test_crops_lay_centres_on_centres():
    """Centres of the first cells, in pixels of the framed image, whose pixel 99 is the first of the image itself."""
    pooled = lambda stride, cell: stride * cell + (stride - 1) / 2
    first = {32: pooled(32, 3)}  # conv6 begins three cells inside
    for stride, crop in ((16, CROPS[16][0]), (8, CROPS[8][1])):
        first[stride] = first[2 * stride] - 1.5 * stride  # a kernel of 4 begins 1.5 cells before its centre
        assert first[stride] == pooled(stride, crop)
    assert CROPS[8][0] == CROPS[16][0]
    for stride, crops in CROPS.items():
        assert 99 - crops[-1] == first[stride] - (2 * stride - 1) / 2


@pytest.mark.parametrize("size", [(33, 50), *(pytest.param(s, marks=pytest.mark.slow) for s in ((1, 1), (64, 31)))])
def test_scores_are_of_every_pixel_of_images_of_any_size(size):
    network = SkipFCN(vgg.Backbone((1, 1, 1, 1, 1), (2, 2, 2, 2, 2), ceil_pooling=True), 3, hidden=2)
    for stride in (32, 16, 8):
        found = jax.eval_shape(
            lambda stride=stride: network.clone(stride=stride).init_with_output(
                jax.random.key(0), jnp.zeros((1, *size, 3)), train=False
            )[0]
        )
        assert found.shape == (1, *size, 3)
    with pytest.raises(ValueError, match=r"stride=4 of a SkipFCN; allowed: 32, 16, 8"):
        spec_of(network.clone(stride=4), (1, 8, 8, 3))


@pytest.mark.slow
def test_scores_of_a_new_network_are_0():
    task, batch = EVERY["fcn16s"](), make_batch(1, dtype=np.float32)
    fresh = jax.jit(task.init)(jax.random.key(0), batch)
    for name in ("scores", "scores4"):
        assert not any(x.any() for x in jax.tree.leaves(fresh["params"][name]))
    assert fresh["params"]["conv6"]["kernel"].any()
    assert not jax.jit(task.predict)(fresh, batch).logits.any()


@pytest.mark.slow
def test_at_once_scales_the_finer_maps(float64):
    network = SkipFCN(vgg.Backbone((1, 1, 1, 1, 1), (2, 2, 2, 2, 2), ceil_pooling=True, dtype=jnp.float64), 3, hidden=4)
    task = segmentation.segmenter(network, mean=0.0, std=1.0, dtype=jnp.float64)
    batch = make_batch(1)
    variables = variables_of(task, batch)
    scaled = {**variables["params"]}
    for name, scale in (("scores4", 0.01), ("scores3", 0.0001)):
        scaled[name] = {**scaled[name], "kernel": scale * scaled[name]["kernel"]}
    run = lambda network, params: jax.jit(network.apply, static_argnames="train")(
        {"params": params}, batch.image, train=False
    )
    found = run(network.clone(at_once=True), variables["params"])
    assert_allclose(found, run(network, scaled), rtol=1e-9, atol=1e-12)
    assert np.abs(found - run(network, variables["params"])).max() > 0.01


def test_a_canvas_is_padded_for_a_network_that_needs_it(float64, tiny_net):
    """Scores of the padded canvas are cut to the canvas, in loss and prediction."""
    network = tiny_net(classes=3, norm=False, dtype=jnp.float64, pool=False)
    plain, wide = (
        segmentation.segmenter(network, multiple_of=step, mean=0.0, std=255.0, dtype=jnp.float64) for step in (1, 12)
    )
    batch = make_batch(2)
    variables = variables_of(plain, batch)
    assert jax.eval_shape(plain.predict, variables, batch).logits.shape == (2, 16, 16, 3)
    larger = jax.tree.map(lambda x: jnp.pad(x, [(0, 0), (0, 4), (0, 4)]), batch.target)
    padded = batch.replace(image=jnp.pad(batch.image, [(0, 0), (0, 4), (0, 4), (0, 0)]), target=larger)
    key, cut = jax.random.key(0), jax.vmap(lambda x: segmentation.on_canvas(x, (32, 32), (36, 36)))
    both = lambda task: lambda batch: (task.predict(variables, batch).logits, task.loss(variables, batch, key)[0])
    (logits, loss), (other, expected) = jax.jit(both(wide))(batch), jax.jit(both(plain))(padded)
    assert logits.shape == (2, 32, 32, 3)
    assert_allclose(logits, jax.jit(cut)(other), rtol=1e-12)
    assert_allclose(loss, expected, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fcn", "deeplab", "fcn8s"])
def test_it_learns_a_few_images_by_heart(name, train_steps):
    """Squares of 16 pixels."""
    batch = make_batch(4, dtype=np.float32)
    halves = jnp.asarray(np.random.default_rng(3).integers(0, 3, (4, 2, 2)).repeat(16, 1).repeat(16, 2), jnp.int32)
    image = jnp.where(batch.image > 0, 20.0 + 100 * halves[..., None], 0)
    batch = batch.replace(image=image, target=batch.target.replace(label=halves))
    options = {"loss": segmentation.CROSS_ENTROPY} if name == "fcn8s" else {}
    task = EVERY[name](**options)
    state, losses = train_steps(task, batch, steps=80)
    assert losses[-1] < 0.6 * losses[0]
    scores = jax.jit(task.predict)(state.averaged, batch).logits
    found = jax.vmap(lambda x: segmentation.on_canvas(x, (32, 32), (32, 32)))(scores).argmax(-1)
    assert (found == halves)[np.asarray(batch.target.valid)].mean() > 0.8
