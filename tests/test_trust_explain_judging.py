"""Judging explanations: curves, pointing game, energy, randomised parameters against loops; of a region; pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import spearmanr

from jaxvision.errors import ConfigError
from jaxvision.nn.cnn import SmallCNN
from jaxvision.nn.resnet import Backbone, BasicBlock, ResNet
from jaxvision.nn.vit import ViT
from jaxvision.tasks.classification import classification
from jaxvision.trust.explain import cam, explaining, gradients, judging, layers, masking, scores
from jaxvision.trust.explain.explaining import METHODS, Asked
from jaxvision.trust.explain.overlay import overlay, scaled
from jaxvision.types import Batch, ClassScores, PixelScores, Task

CLASSES = ("a", "b", "c")


def random_map(seed=0, shape=(5, 7)):
    return np.random.default_rng(seed).standard_normal(shape).round(1)


def batch_of(images, content=None):
    count = len(images)
    size = np.tile(np.int32([content or images.shape[1:3]]), (count, 1))
    index = np.arange(count, dtype=np.int32)
    return Batch(jnp.asarray(images), size, size, index, index >= 0)


def by_importance(map):
    """Pixels from the highest value on, of equal ones the first."""
    height, width = map.shape
    return sorted(((y, x) for y in range(height) for x in range(width)), key=lambda at: (-map[at], at))


@pytest.mark.parametrize("judged", [judging.deletion, judging.insertion])
def test_deletion_and_insertion_equal_a_loop(judged):
    map, image = random_map(), np.random.default_rng(1).uniform(0, 255, (5, 7, 3)).astype(np.float32)
    weight = np.random.default_rng(2).standard_normal((5, 7, 3)).astype(np.float32)
    curve = judged(lambda images: (images * weight[None]).sum((1, 2, 3)), jnp.asarray(image), map, 20.0, steps=6)
    order = by_importance(map)
    for step in range(7):
        whole = image.copy() if judged is judging.deletion else np.full_like(image, 20.0)
        for at in order[: round(35 * step / 6)]:
            whole[at] = 20.0 if judged is judging.deletion else image[at]
        assert_allclose(curve.score[step], (whole * weight).sum(), rtol=1e-3, atol=0.1)
    area = sum((curve.score[i] + curve.score[i + 1]) / 12 for i in range(6))
    assert curve.area == pytest.approx(area)
    assert_allclose(curve.fraction, np.arange(7) / 6)


def test_pointing_game_and_energy_equal_a_loop():
    map, box = random_map(3), np.array([1.4, 0.6, 5.5, 3.4])
    mask = judging.inside(box, map.shape)
    for y in range(5):
        for x in range(7):
            assert mask[y, x] == (1.4 <= x + 0.5 < 5.5 and 0.6 <= y + 0.5 < 3.4)
    positive = [(at, max(map[at], 0)) for at in np.ndindex(map.shape)]
    expected = sum(value for at, value in positive if mask[at]) / sum(value for _, value in positive)
    assert judging.energy_inside(map, mask) == pytest.approx(expected)
    assert judging.points_inside(map, mask) == mask[by_importance(map)[0]]
    for peak in ((1, 2), (4, 6)):
        pointed = map.copy()
        pointed[peak] = 9
        assert judging.points_inside(pointed, mask) == mask[peak] == (peak == (1, 2))
    assert np.isnan(judging.energy_inside(-np.ones((5, 7)), mask))


def test_the_rank_correlation_equals_scipy_and_its_verdict_is_told():
    a, b = random_map(4), random_map(5)
    assert judging.rank_correlation(a, b) == pytest.approx(spearmanr(a.ravel(), b.ravel()).statistic)
    assert np.isnan(judging.rank_correlation(a, np.ones_like(a)))
    assert judging.verdict("m", 0.5).startswith("m explains an untrained network as well as the trained one")
    assert judging.verdict("m", 0.49).startswith("m depends on what was learned")
    assert "the map is constant" in judging.verdict("m", float("nan"))


@pytest.fixture(scope="module")
def small():
    """A small network, its variables, and a batch of one image, whose content does not fill the canvas."""
    images = np.random.RandomState(0).uniform(0, 255, (1, 12, 12, 3)).astype(np.float32)
    task = classification(SmallCNN(3, (4, 6), depth=1, dropout=0.0), mean=127.0, std=64.0)
    batch = batch_of(images, (10, 12))
    return task, task.init(jax.random.key(0), batch), batch


def test_randomised_parameters_are_the_same_values_in_another_order(small):
    _, variables, _ = small
    variables = {**variables, "ema": {"params": variables["params"]}}
    random = judging.randomised(variables, 3)
    assert random.keys() == variables.keys() - {"ema"}
    jax.tree.map(np.testing.assert_array_equal, random["batch_stats"], variables["batch_stats"])
    for ours, given in zip(jax.tree.leaves(random["params"]), jax.tree.leaves(variables["params"]), strict=True):
        np.testing.assert_array_equal(np.sort(ours, None), np.sort(given, None))
    kernels = [tree["params"]["stage1_conv1"]["kernel"] for tree in (random, variables)]
    assert np.mean(np.asarray(kernels[0]) != kernels[1]) > 0.9


QUICK = ("saliency", "grad_cam")


@pytest.mark.parametrize(
    "method",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in METHODS
        if name not in ("rollout", "d_rise", "odam")
    ],
)
def test_every_method_gives_the_content_its_map_and_a_figure_with_randomised_parameters(small, method):
    found = explaining.explain(*small, CLASSES, method, Asked(label="b", masks=32), check=True)
    assert found.map.shape == (10, 12)
    assert (found.subject.name, found.subject.label) == ("b", 1)
    assert np.isfinite(found.map).all()
    assert -1 <= found.correlation <= 1
    task, variables, batch = small
    random = judging.randomised(variables, 0)
    other = explaining.explain(task, random, batch, CLASSES, method, Asked(label="b", masks=32))
    assert found.correlation == pytest.approx(spearmanr(found.map.ravel(), other.map.ravel()).statistic, abs=1e-5)
    logits = task.predict(variables, batch).logits[0]
    assert found.score == pytest.approx(float(jax.nn.softmax(logits)[1]), rel=1e-4)


@pytest.mark.slow
def test_rollout_depends_on_the_parameters():
    images = np.random.RandomState(0).uniform(0, 255, (1, 16, 16, 3)).astype(np.float32)
    task = classification(ViT(patch=4, width=6, depth=2, heads=2, classes=3), mean=127.0, std=64.0)
    batch = batch_of(images)
    variables = jax.tree.map(lambda x: 3 * x, task.init(jax.random.key(0), batch))
    found = explaining.explain(task, variables, batch, CLASSES, "rollout", check=True)
    assert found.map.shape == (16, 16)
    assert -1 <= found.correlation < 1


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_integrated_gradients_of_resnet18_are_complete():
    """Within 1 % at 300 steps, of scores that differ enough for a fraction to have a meaning."""
    images = jnp.asarray(np.random.RandomState(0).uniform(0, 255, (2, 32, 32, 3)))
    task = classification(
        ResNet(Backbone(BasicBlock, (2, 2, 2, 2), width=16, dtype=jnp.float64), 3), mean=127.0, std=64.0
    )
    batch = batch_of(np.asarray(images))
    score = scores.of_class(task, task.init(jax.random.key(0), batch), batch, 1)
    found = gradients.integrated_gradients(score, images, 127.0, 300)
    difference = np.asarray(score(images) - score(jnp.full_like(images, 127.0)))
    assert (abs(difference) > 0.01).all()
    missed = judging.completeness(score, images, found, 127.0)
    assert_allclose(missed, abs(np.asarray(found).sum((1, 2, 3)) - difference) / abs(difference), atol=1e-12)
    assert (missed < 0.01).all()


def linear_segmenter():
    """A segmenter whose logits are a 1x1 convolution of the pixels, in a layer `features`."""
    import flax.linen as nn

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Conv(2, (1, 1), name="head")(nn.Conv(4, (1, 1), name="features")(x))

    network = Network()
    predict = lambda variables, batch: PixelScores(network.apply(variables, batch.image))
    return Task(lambda key, batch: network.init(key, batch.image), None, predict)


def test_grad_cam_of_a_region_equals_a_loop_and_a_region_that_is_not_there_is_refused():
    task, batch = linear_segmenter(), batch_of(np.random.RandomState(1).uniform(-1, 1, (1, 4, 5, 3)).astype(np.float32))
    variables = task.init(jax.random.key(0), batch)
    prediction = task.predict(variables, batch)
    best = np.asarray(prediction.logits[0]).argmax(-1)
    assert set(best.ravel()) == {0, 1}
    subject = explaining.find(task, variables, batch, ("stuff", "thing"), Asked(label="thing"))
    assert subject.name == "the pixels of thing"
    seen, slopes = layers.with_gradients(subject.raw, batch.image, "features")
    found = cam.grad_cam(seen[0], slopes[0])[0]
    kernel, features = np.asarray(variables["params"]["head"]["kernel"])[0, 0], np.asarray(seen[0])[0]
    expected = np.zeros((4, 5))
    for y in range(4):
        for x in range(5):
            weights = [sum(kernel[c, 1] for at in np.ndindex(4, 5) if best[at] == 1) / 20 for c in range(4)]
            expected[y, x] = max(sum(weights[c] * features[y, x, c] for c in range(4)), 0)
    assert_allclose(found, expected, atol=1e-5)
    none = PixelScores(jnp.zeros((1, 2, 2, 2)).at[..., 0].set(1))
    with pytest.raises(ConfigError, match="no pixel of the image is predicted to be of class 1"):
        scores.predicted_region(none, 1)


def test_a_map_of_zeros_or_without_numbers_is_refused(small):
    for map, text in ((np.zeros((2, 2)), "is zero everywhere"), (np.full((2, 2), np.nan), "is not finite")):
        with pytest.raises(ConfigError, match=f"the attribution of it {text}"):
            judging.check_nonzero(map, "it")
    _, variables, batch = small
    constant = Task(None, None, lambda variables, batch: ClassScores(jnp.zeros((len(batch.image), 3))))
    with pytest.raises(ConfigError, match="the attribution of a is zero everywhere"):
        explaining.explain(constant, variables, batch, CLASSES, "saliency", Asked(label="a"))


def test_another_image_compiles_nothing(small):
    task, variables, batch = small
    other = batch.replace(image=255 - batch.image)
    methods = ("saliency", "grad_cam", "occlusion")
    for method in methods:
        explaining.explain(task, variables, batch, CLASSES, method)
    compiled = gradients._gradient, layers._tapped, masking._masked, scores._values
    before = [each._cache_size() for each in compiled]
    for method in methods:
        explaining.explain(task, variables, other, CLASSES, method, Asked(label="c"))
    assert [each._cache_size() for each in compiled] == before


def test_the_overlay_shows_the_image_where_the_map_is_low_and_the_map_where_it_is_high():
    image = np.random.default_rng(0).integers(0, 255, (400, 330, 3), dtype=np.uint8)
    map = np.zeros((400, 330))
    map[:40] = 1
    picture = np.asarray(overlay(image, map, np.array([10.0, 200, 60, 260])))
    assert picture.shape == image.shape
    low, high = picture[300:], picture[:40]
    assert np.corrcoef(low.mean(-1).ravel(), image[300:].mean(-1).ravel())[0, 1] > 0.99
    assert np.ptp(low.mean(-1)) > 0.7 * np.ptp(image[300:].mean(-1))
    assert high.reshape(-1, 3).mean(0)[0] > high.reshape(-1, 3).mean(0)[2] + 60  # red
    assert (picture[200, 20:50] == 255).all()
    assert overlay(image[:100, :50, :1], map[:100, :50]).size == (350, 700)


def test_values_are_scaled_from_the_median_to_a_high_quantile():
    map = np.arange(200.0).reshape(10, 20)
    low, high = np.quantile(map, [0.5, 0.99])
    expected = [[min(max((value - low) / (high - low), 0), 1) for value in row] for row in map]
    assert_allclose(scaled(map), expected)
    map[0, 0] = 1e6  # a single pixel
    assert scaled(map)[7, 10] > 0.5
    few = np.ones((10, 20))
    few[0, 0] = 0
    assert (scaled(few) == few).all()
    assert (scaled(np.ones((2, 2))) == 0).all()
