"""Recipes of experiments against the numbers of their sources: rates at chosen steps, decay, momentum, batches, crops."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from data_encoding import smooth
from experiment_files import EXPERIMENTS, build
from flax import linen as nn
from flax import traverse_util
from PIL import Image

from jaxvision.data.source import Source, annotations
from jaxvision.nn.norm import BatchNorm
from jaxvision.nn.stochastic_depth import StochasticDepth
from jaxvision.run.config import load

NAMES = ("head/kernel", "head/bias", "norm/scale", "backbone/kernel", "box_head/logits/kernel", "box_head/logits/bias")
"""Parameters of a network that has all that a recipe tells apart."""
PLAIN, NESTEROV = 1.0, 1.9
"""What the first step of SGD takes of a rate times a gradient: Nesterov's looks one step ahead."""


@dataclass
class Recipe:
    """Numbers of a source."""

    rates: dict[int, float]
    """The learning rate by step."""
    decay: tuple[float, float, float]
    """Weight decay of kernels, of biases, and of the scales of norms."""
    batch: int
    steps: int
    side: int
    """Height of the images of training, in pixels."""
    gain: float = PLAIN
    """What the first step takes of a rate times a gradient."""
    biases: float = 1.0
    """Rate of biases, over that of kernels."""


def cosine(peak, floor, part):
    return floor + (peak - floor) * (1 + np.cos(np.pi * part)) / 2


DARKNET_RATES = {0: 0, 500: 1e-3 / 16, 1000: 1e-3, 399_999: 1e-3, 400_000: 1e-4, 450_000: 1e-5}
YOLOX_RATES = {0: 0, 4620: 0.01 / 4, 9240: 0.01, 267_960: cosine(0.01, 5e-4, 0.5), 526_680: 5e-4, 554_399: 5e-4}
RECIPES = {
    # DeiT, main.py: --lr 5e-4 for 512 images, --warmup-lr 1e-6, --min-lr 1e-5; a cosine over all 300 epochs
    "imagenet_vit_small": Recipe(
        {0: 1e-6, 6255: cosine(1e-3, 1e-5, 1 / 60), 1251 * 150: cosine(1e-3, 1e-5, 0.5), 1251 * 300: 1e-5},
        decay=(0.05, 0, 0),
        batch=1024,
        steps=1251 * 300,
        side=224,
    ),
    # tensorflow/tpu, efficientnet/main.py: 0.016 for 256 images, times 0.97 every 2.4 epochs, counted from the first
    "imagenet_efficientnet_lite0": Recipe(
        {0: 0, 1562: 0.128 * 1562 / 3125, 3125: 0.128 * 0.97**2, 15_000: 0.128 * 0.97**10},
        decay=(1e-5, 1e-5, 0),
        batch=2048,
        steps=625 * 350,
        side=224,
        gain=1 / np.sqrt(0.9 + 1e-3),
    ),
    # arXiv:1706.02677 and arXiv:1812.01187
    "imagenet_resnet50": Recipe(
        {0: 0, 6255: 0.4, 6255 + 1251 * 85 // 2: 0.2, 1251 * 90: 0},
        decay=(1e-4, 0, 0),
        batch=1024,
        steps=1251 * 90,
        side=224,
        gain=NESTEROV,
    ),
    # arXiv:1512.00567, section 8, and tensorflow/models, inception: times 0.94 every two epochs
    "imagenet_inception_v3": Recipe(
        {0: 0.045, 1599: 0.045, 1600: 0.045 * 0.94, 16_000: 0.045 * 0.94**10},
        decay=(4e-5, 0, 0),
        batch=1600,
        steps=800 * 100,
        side=299,
        gain=1 / np.sqrt(0.9 + 1.0),
    ),
    # forresti/SqueezeNet, SqueezeNet_v1.1/solver.prototxt and train_val.prototxt
    "imagenet_squeezenet": Recipe(
        {0: 0.04, 85_000: 0.02, 170_000: 0}, decay=(2e-4, 2e-4, 2e-4), batch=32 * 16, steps=170_000, side=227
    ),
    # weiliu89/caffe, examples/ssd/ssd_coco.py: 4e-5 * 25, no warm-up; VGGNetBody: lr_mult 2 and decay_mult 0 of biases
    "coco_ssd300": Recipe(
        {0: 1e-3, 279_999: 1e-3, 280_000: 1e-4, 360_000: 1e-5},
        decay=(5e-4, 0, 0),
        batch=32,
        steps=400_000,
        side=300,
        biases=2,
    ),
    # the same, ssd_pascal.py
    "voc_ssd300": Recipe(
        {0: 1e-3, 79_999: 1e-3, 80_000: 1e-4, 100_000: 1e-5},
        decay=(5e-4, 0, 0),
        batch=32,
        steps=120_000,
        side=300,
        biases=2,
    ),
    # shelhamer/fcn.berkeleyvision.org, voc-fcn8s/solver.prototxt and net.py: lr_mult 2 and decay_mult 0 of biases
    "voc_fcn": Recipe({0: 1e-14, 99_999: 1e-14}, decay=(5e-4, 0, 0), batch=1, steps=100_000, side=500, biases=2),
    # rbgirshick/rcnn, finetuning/voc_2007_prototxt and README: stepsize 20000, 70k iterations; blobs_lr 2 of biases
    "voc_rcnn": Recipe(
        {0: 1e-3, 19_999: 1e-3, 20_000: 1e-4, 40_000: 1e-5, 60_000: 1e-6},
        decay=(5e-4, 0, 0),
        batch=2,
        steps=70_000,
        side=500,
        biases=2,
    ),
    # facebookresearch/detr, main.py: AdamW decays everything
    "coco_detr": Recipe(
        {0: 1e-4, 739_199: 1e-4, 739_200: 1e-5}, decay=(1e-4, 1e-4, 1e-4), batch=64, steps=924_000, side=800
    ),
    # the same, README: 25 epochs of 16 images for masks, --lr_drop 15; 7,393 steps an epoch
    "coco_detr_panoptic": Recipe(
        {0: 1e-4, 110_894: 1e-4, 110_895: 1e-5}, decay=(1e-4, 1e-4, 1e-4), batch=16, steps=184_825, side=800
    ),
    # dbolya/yolact, data/config.py and train.py: lr_warmup_init, lr_warmup_until, lr_steps; everything decays
    "coco_yolact": Recipe(
        {0: 1e-4, 250: 5.5e-4, 500: 1e-3, 279_999: 1e-3, 280_000: 1e-4, 600_000: 1e-5, 700_000: 1e-6, 750_000: 1e-7},
        decay=(5e-4, 5e-4, 5e-4),
        batch=8,
        steps=800_000,
        side=550,
    ),
    # Megvii-BaseDetection/YOLOX, yolox_base.py and lr_scheduler.py; 1,848 steps an epoch
    "coco_yolox": Recipe(YOLOX_RATES, decay=(5e-4, 0, 0), batch=64, steps=554_400, side=640, gain=NESTEROV),
    # pjreddie/darknet, cfg/yolov3.cfg
    "coco_yolov3": Recipe(DARKNET_RATES, decay=(5e-4, 0, 0), batch=64, steps=500_200, side=416),
    # pytorch/vision, references/detection: 7,329 steps an epoch, a linear warm-up of 1,000 steps from a thousandth
    "coco_faster_rcnn": Recipe(
        {0: 2e-5, 500: 0.02 * 0.5005, 1000: 0.02, 117_264: 2e-3, 161_238: 2e-4},
        decay=(1e-4, 1e-4, 1e-4),
        batch=16,
        steps=190_554,
        side=800,
    ),
    "coco_retinanet": Recipe(
        {0: 1e-5, 500: 0.01 * 0.5005, 1000: 0.01, 117_264: 1e-3, 161_238: 1e-4},
        decay=(1e-4, 1e-4, 1e-4),
        batch=16,
        steps=190_554,
        side=800,
    ),
}


def chosen(stem):
    (found,) = (each for each in EXPERIMENTS if each.stem == stem)
    return found


def experiment_of(stem, **overrides):
    return build(chosen(stem), {name: str(value) for name, value in overrides.items()}, None)


def at(state, step):
    """The state of an optimizer, its learning rate that of this step."""
    is_rate = lambda each: isinstance(each, optax.ScaleByScheduleState)
    moved = lambda each: optax.ScaleByScheduleState(jnp.int32(step)) if is_rate(each) else each
    return jax.tree.map(moved, state, is_leaf=is_rate)


def falls(optimizer, step, gradient):
    """How much each parameter, of value 1, falls in a first step at the rate of this one, by name."""
    params = traverse_util.unflatten_dict(dict.fromkeys(NAMES, jnp.ones(1)), sep="/")
    gradients = jax.tree.map(lambda x: gradient * x, params)
    updates, _ = optimizer.update(gradients, at(optimizer.init(params), step), params)
    return {name: -float(x[0]) for name, x in traverse_util.flatten_dict(updates, sep="/").items()}


@pytest.mark.parametrize("stem", RECIPES)
def test_rate_decay_batch_and_length_are_those_of_the_source(stem):
    recipe, experiment = RECIPES[stem], experiment_of(stem)
    kernel, bias, scale = recipe.decay
    for step, rate in recipe.rates.items():
        found = falls(experiment.optimizer, step, 0.0)
        close = lambda decay, rate=rate: pytest.approx(
            rate * decay * recipe.gain, rel=2e-3, abs=min(1e-12, 1e-6 * rate)
        )
        assert found["head/kernel"] == close(kernel)
        assert found["head/bias"] == close(bias * recipe.biases)
        assert found["norm/scale"] == close(scale)
    assert experiment.steps == recipe.steps
    assert experiment.train.spec.image.shape[:2] == (recipe.batch, recipe.side)


@pytest.mark.parametrize("stem", ["coco_ssd300", "voc_ssd300", "voc_rcnn"])
def test_biases_learn_at_twice_the_rate(stem):
    found = falls(experiment_of(stem, weight_decay=0.0).optimizer, 0, 1e-3)
    assert found["head/kernel"] == pytest.approx(1e-6, rel=1e-4)
    assert found["head/bias"] == pytest.approx(2e-6, rel=1e-4)


@pytest.mark.parametrize(("stride", "rate"), [(32, 1e-10), (16, 1e-12), (8, 1e-14)])
def test_fcns_have_the_rates_and_the_momentum_of_their_authors(stride, rate):
    optimizer = experiment_of("voc_fcn", weight_decay=0.0, stride=stride).optimizer
    params = {"head": {"kernel": jnp.ones(1), "bias": jnp.ones(1)}}
    state, steps = optimizer.init(params), []
    for _ in range(2):
        updates, state = optimizer.update(params, state, params)
        steps.append([-float(updates["head"][name][0]) for name in ("kernel", "bias")])
    np.testing.assert_allclose(steps, [[rate, 2 * rate], [1.99 * rate, 3.98 * rate]], rtol=1e-5)


def test_a_batch_of_rcnn_has_the_24_regions_of_the_papers_vgg16():
    config = load(chosen("voc_rcnn").path).get_config()
    assert config.batch_size * config.regions_per_image == 24  # arXiv:1311.2524, section 3.3


def test_the_new_classes_of_rcnn_and_the_backbone_of_detr_have_rates_of_their_own():
    rcnn = falls(experiment_of("voc_rcnn", weight_decay=0.0).optimizer, 0, 1e-3)
    assert rcnn["box_head/logits/kernel"] == pytest.approx(1e-5, rel=1e-4)
    assert rcnn["box_head/logits/bias"] == pytest.approx(2e-5, rel=1e-4)
    detr = falls(experiment_of("coco_detr").optimizer, 0, 0.0)
    assert detr["backbone/kernel"] == pytest.approx(1e-5 * 1e-4, rel=1e-3)
    boxes = falls(experiment_of("coco_detr_panoptic", stage="boxes").optimizer, 1_478_600, 0.0)
    assert boxes["backbone/kernel"] == pytest.approx(1e-6 * 1e-4, rel=1e-3)
    assert boxes["head/kernel"] == pytest.approx(1e-5 * 1e-4, rel=1e-3)


AVERAGES = {  # by tf.train.ExponentialMovingAverage(num_updates=) and yolox/utils/ema.py
    "imagenet_efficientnet_lite0": {0: 1 / 10, 990: 991 / 1000, 10**6: 0.9999},
    "imagenet_inception_v3": {0: 1 / 10, 990: 991 / 1000, 10**6: 0.9999},
    "coco_yolox": {0: 0.9998 * (1 - np.exp(-1 / 2000)), 1999: 0.9998 * (1 - np.exp(-1)), 10**6: 0.9998},
}


@pytest.mark.parametrize("stem", AVERAGES)
def test_averages_ramp_as_those_of_the_source(stem):
    average = experiment_of(stem).average
    for step, decay in AVERAGES[stem].items():
        before, now = {"params": jnp.ones(())}, {"params": jnp.zeros(())}
        found = average.update(average.init(before), now, jnp.int32(step))
        assert float(found["params"]) == pytest.approx(decay, rel=1e-4)


PIXELS = smooth(300, 420)


@pytest.mark.parametrize("stem", ["imagenet_vit_small", "imagenet_efficientnet_lite0"])
def test_evaluation_resizes_by_pils_bicubic(stem):
    (evaluation,) = experiment_of(stem).evaluations.values()
    resized = Image.fromarray(PIXELS).resize((256 * 420 // 300, 256), Image.Resampling.BICUBIC)
    expected = resized.crop((67, 16, 67 + 224, 16 + 224))
    np.testing.assert_array_equal(evaluation.stream.decode(PIXELS).image, np.asarray(expected))


def layers_of(experiment):
    """The layers of a network, in the order in which they are called."""
    layers = []

    def note(call, arguments, keywords, context):
        layers.append(context.module)
        return call(*arguments, **keywords)

    with nn.intercept_methods(note):
        zeros = lambda x: jnp.zeros(x.shape, x.dtype)
        jax.eval_shape(
            lambda key: experiment.task.init(key, jax.tree.map(zeros, experiment.train.spec)), jax.random.key(0)
        )
    return layers


def test_efficientnet_has_the_momentum_and_the_survival_of_its_source():
    layers = layers_of(experiment_of("imagenet_efficientnet_lite0", image_size=32, batch_size=1))
    norms = [each for each in layers if isinstance(each, BatchNorm)]
    assert {(each.momentum, each.epsilon) for each in norms} == {(0.99, 1e-3)}
    # efficientnet_model.py: the survival of block i of 16 is 1 - 0.2 i / 16; blocks without a shortcut have none
    shortcuts = (2, 4, 6, 7, 9, 10, 12, 13, 14)
    rates = [each.rate for each in layers if isinstance(each, StochasticDepth)]
    np.testing.assert_allclose(rates, [0.2 * block / 16 for block in shortcuts], rtol=1e-12)


def test_inception_has_the_momentum_of_its_source():
    layers = layers_of(experiment_of("imagenet_inception_v3", image_size=75, batch_size=1, auxiliary=0))
    norms = [each for each in layers if isinstance(each, BatchNorm)]
    assert {(each.momentum, each.epsilon) for each in norms} == {(0.9997, 1e-3)}


@pytest.mark.parametrize("stem", ["coco_faster_rcnn", "coco_retinanet"])
def test_images_of_crowds_are_trained_on_and_those_of_slivers_and_of_nothing_are_not(stem):
    each = [
        annotations([[0, 0, 9, 9]], [0]),
        annotations([], []),
        annotations([[0, 0, 9, 9]], [0], ignore=[True]),
        annotations([[0, 0, 1, 9]], [0]),
        annotations([[0, 0, 1, 9], [2, 2, 4, 4]], [0, 0]),
    ]
    source = Source(5, lambda rows: [], lambda: np.zeros(5), ("a",), str, "", objects=lambda: each)
    kept = load(chosen(stem).path).with_objects(source)
    assert [kept.name(index) for index in range(kept.length)] == ["0", "2", "4"]
