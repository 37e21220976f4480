"""What detectors compute from given weights, here and in torchvision. Only functions that end in `_torch` import torch."""

import jax
import jax.numpy as jnp
import numpy as np
from parity_networks import UNOPTIMISED, random_weights, summary, under_torch_names

from jaxvision.pretrained import strict, torchvision_detection
from jaxvision.tasks.ssd import SSD300, ssd, ssd300_vgg16
from jaxvision.types import Batch, Objects

CLASSES = 6
SEED = 3
SHAPE = (2, 300, 300, 3)
MEAN = tuple(255 * np.array([0.48235, 0.45882, 0.40784]))
BOXES = (
    [[10, 20, 110, 90], [12, 22, 108, 95], [150, 30, 290, 260], [0, 200, 60, 300]],
    [[100, 100, 140, 150], [5, 5, 295, 295]],
)
LABELS = ([1, 0, 4, 2], [3, 5])


def weights_of(shapes):
    """Random weights under torchvision's names, in which the scores spread and the L2 norm has its scale."""
    weights = random_weights(shapes, SEED)
    weights["backbone.scale_weight"] = 20 + weights["backbone.scale_weight"]
    for name in weights:
        if "classification_head" in name and name.endswith("weight"):
            weights[name] = 2 * weights[name]
    return weights


def images(count=SHAPE[0]):
    """Pixels, 0-255, of blurred noise: neighbours are alike, as in photographs."""
    noise = np.random.RandomState(SEED + 1).uniform(0, 255, (count, 10, 10, 3))
    return np.repeat(np.repeat(noise, 30, 1), 30, 2)


def batch(count=SHAPE[0], rows=6):
    """The images with their objects, padded."""
    boxes, labels = np.zeros((count, rows, 4)), np.zeros((count, rows), np.int32)
    valid = np.zeros((count, rows), bool)
    for i in range(count):
        n = len(LABELS[i])
        boxes[i, :n], labels[i, :n], valid[i, :n] = BOXES[i], LABELS[i], True
    size = jnp.full((count, 2), 300, jnp.int32)
    target = Objects(*map(jnp.asarray, (boxes, labels, valid, np.zeros_like(valid))))
    index = jnp.arange(count, dtype=jnp.int32)
    return Batch(jnp.asarray(images(count)), size, size, index, index >= 0, target)


def ssd_figures(shapes, count=SHAPE[0]):
    """Ours, in float64: outputs of the head, both losses, gradients by torchvision's names, detections."""
    network = ssd300_vgg16(CLASSES, dtype=jnp.float64)
    task = ssd(network, SSD300, mean=MEAN, std=1.0, dtype=jnp.float64)
    given = batch(count)
    spec = jax.eval_shape(task.init, jax.random.key(0), given)
    sources = torchvision_detection.ssd_sources(spec)
    variables = strict.load(sources, weights_of(shapes), spec).variables

    def loss(params):
        value, out = task.loss({"params": params}, given, jax.random.key(0))
        return value, out.metrics

    def everything(params):
        outputs = network.apply({"params": params}, given.image - jnp.asarray(MEAN).reshape(1, 1, 1, 3), train=False)
        flat = [
            jnp.concatenate([x.reshape(count, -1, x.shape[-1]) for x in maps], 1) for maps in zip(*outputs, strict=True)
        ]
        return *flat, jax.value_and_grad(loss, has_aux=True)(params), task.predict({"params": params}, given)

    compiled = jax.jit(everything).lower(variables["params"]).compile(UNOPTIMISED)
    logits, offsets, ((_, losses), gradient), found = jax.device_get(compiled(variables["params"]))
    return {
        "logits": logits,
        "offsets": offsets,
        "losses": [losses["class_loss"], losses["box_loss"]],
        "gradients": under_torch_names(sources, "params", gradient),
        "detections": [
            (found.boxes[i][found.valid[i]], found.labels[i][found.valid[i]], found.scores[i][found.valid[i]])
            for i in range(count)
        ],
    }


def ssd_figures_torch(count=SHAPE[0]):
    """torchvision's, in float64, and the shapes of its weights."""
    import torch
    from torchvision.models.detection import ssd300_vgg16 as theirs

    model = theirs(weights=None, weights_backbone=None, num_classes=CLASSES + 1, trainable_backbone_layers=5).double()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights_of(shapes).items()})
    pixels = [torch.from_numpy(x.transpose(2, 0, 1) / 255) for x in images(count)]
    targets = [
        {"boxes": torch.tensor(BOXES[i], dtype=torch.float64), "labels": torch.tensor(LABELS[i]) + 1}
        for i in range(count)
    ]
    kept = {}
    model.head.register_forward_hook(lambda module, given, output: kept.update(output))
    losses = model.train()(pixels, targets)
    sum(losses.values()).backward()
    gradients = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    outputs = {name: tensor.detach().numpy() for name, tensor in kept.items()}
    with torch.no_grad():
        found = model.eval()(pixels)
    return shapes, {
        "logits": outputs["cls_logits"],
        "offsets": outputs["bbox_regression"],
        "losses": [losses["classification"].item(), losses["bbox_regression"].item()],
        "gradients": gradients,
        "detections": [(each["boxes"].numpy(), each["labels"].numpy() - 1, each["scores"].numpy()) for each in found],
    }


def golden_of(shapes, figures):
    """What is kept of figures: small arrays."""
    kept = {f"{name}": summary({"all": figures[name]}) for name in ("logits", "offsets")}
    for name in ("logits", "offsets"):
        kept[f"{name}_some"] = figures[name][:, ::499]
    best = [np.concatenate([b[:20], l[:20, None], s[:20, None]], 1) for b, l, s in figures["detections"]]
    return {
        **kept,
        "shapes": np.array([" ".join([name, *map(str, shape)]) for name, shape in sorted(shapes.items())]),
        "losses": np.array(figures["losses"]),
        "gradients": summary(figures["gradients"]),
        "detections": np.stack(best),
        "counts": np.array([len(b) for b, _, _ in figures["detections"]]),
    }


def assert_same(found, expected):
    """Our golden figures are those of torchvision."""
    for name in ("logits", "offsets"):
        largest = np.abs(expected[f"{name}_some"]).max()
        np.testing.assert_allclose(found[f"{name}_some"], expected[f"{name}_some"], rtol=0, atol=1e-7 * largest)
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=1e-6)
    norms = np.maximum(expected["gradients"][:, :1], 1e-6 * expected["gradients"][:, :1].max())
    np.testing.assert_allclose(found["gradients"] / norms, expected["gradients"] / norms, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found["counts"], expected["counts"])
    np.testing.assert_allclose(found["detections"], expected["detections"], rtol=1e-4, atol=1e-4)
