"""What YOLOX computes from given weights, here and in its authors' code. Only functions that end in `_torch` import torch.

The code is that of the package `pixeltable-yolox`, which keeps it up to date with PyTorch.
"""

import jax
import jax.numpy as jnp
import numpy as np
from parity_networks import UNOPTIMISED, random_weights, summary, under_torch_names

from jaxvision.pretrained import strict
from jaxvision.pretrained.yolox import yolox_sources
from jaxvision.tasks import yolox as networks
from jaxvision.tasks.yolox import yolox
from jaxvision.types import Batch, Objects

CLASSES, SEED, SIDE = 6, 3, 128
SIZES = {
    "nano": (0.33, 0.25, True),
    "tiny": (0.33, 0.375, False),
    "s": (0.33, 0.5, False),
    "m": (0.67, 0.75, False),
    "l": (1.0, 1.0, False),
    "x": (1.33, 1.25, False),
}
"""Factors of depth and width there, and whether it is depthwise."""
BOXES = (
    [[10, 20, 70, 50], [12, 22, 68, 55], [60, 30, 120, 120], [0, 90, 30, 128]],
    [[50, 50, 60, 75], [5, 5, 125, 125]],
    [],
)
LABELS = ([1, 0, 4, 2], [3, 5], [])
TERMS = ("box_loss", "objectness_loss", "class_loss", "l1_loss")


def network_of(size, classes=CLASSES, dtype=jnp.float64):
    return getattr(networks, f"yolox_{size}")(classes, dtype=dtype)


def weights_of(shapes):
    """Random weights under the authors' names, in which scores spread."""
    weights = random_weights(shapes, SEED)
    for name in weights:
        if "_preds" in name and name.endswith("weight"):
            weights[name] = 1.5 * weights[name]
    return weights


def images():
    """Pixels, 0-255, of blurred noise: neighbours are alike, as in photographs."""
    noise = np.random.RandomState(SEED + 1).uniform(0, 255, (len(BOXES), 16, 16, 3))
    return np.repeat(np.repeat(noise, SIDE // 16, 1), SIDE // 16, 2)


def batch(rows=6):
    """The images with their objects, padded."""
    count = len(BOXES)
    boxes, labels = np.zeros((count, rows, 4)), np.zeros((count, rows), np.int32)
    valid = np.zeros((count, rows), bool)
    for i, (own, kinds) in enumerate(zip(BOXES, LABELS, strict=True)):
        if own:
            boxes[i, : len(own)], labels[i, : len(own)], valid[i, : len(own)] = own, kinds, True
    size = jnp.full((count, 2), SIDE, jnp.int32)
    target = Objects(*map(jnp.asarray, (boxes, labels, valid, np.zeros_like(valid))))
    index = jnp.arange(count, dtype=jnp.int32)
    return Batch(jnp.asarray(images()), size, size, index, index >= 0, target, {"l1": jnp.ones(count)})


def figures(size, shapes):
    """Ours, in float64: outputs, losses, gradients and new statistics by the authors' names, detections."""
    network = network_of(size)
    task = yolox(network, max_detections=400, dtype=jnp.float64)
    given = batch()
    spec = jax.eval_shape(task.init, jax.random.key(0), given)
    sources = yolox_sources(spec)
    variables = strict.load(sources, weights_of(shapes), spec).variables
    rest = {name: tree for name, tree in variables.items() if name != "params"}

    def loss(params):
        value, out = task.loss({**rest, "params": params}, given, jax.random.key(0))
        return value, (out.metrics, out.collections["batch_stats"])

    def everything(params):
        outputs = network.apply({**rest, "params": params}, given.image, train=False)
        flat = jnp.concatenate([x.reshape(len(x), -1, x.shape[-1]) for x in outputs], 1)
        found = task.predict({**rest, "params": params}, given)
        return flat, jax.value_and_grad(loss, has_aux=True)(params), found

    compiled = jax.jit(everything).lower(variables["params"]).compile(UNOPTIMISED)
    flat, ((total, (losses, statistics)), gradient), found = jax.device_get(compiled(variables["params"]))
    return {
        "outputs": flat,
        "losses": [total, *(losses[name] for name in TERMS)],
        "gradients": under_torch_names(sources, "params", _as_bgr(gradient)),
        "statistics": under_torch_names(sources, "batch_stats", statistics),
        "detections": [
            np.concatenate([found.boxes[i], found.labels[i][:, None], found.scores[i][:, None]], 1)[found.valid[i]]
            for i in range(len(BOXES))
        ],
    }


def _as_bgr(gradient):
    """With the gradient of the first kernel for the colours in the authors' order."""
    kernel = gradient["backbone"]["stem"]["conv"]["kernel"]
    turned = np.concatenate([kernel[:, :, 3 * i : 3 * i + 3][:, :, ::-1] for i in range(4)], 2)
    stem = {**gradient["backbone"]["stem"], "conv": {"kernel": turned}}
    return {**gradient, "backbone": {**gradient["backbone"], "stem": stem}}


def model_torch(size, classes=CLASSES):
    """The authors' network, with their constants of normalisation."""
    import torch
    from yolox.models import YoloPafpn, YoloxHead, YoloxModule

    depth, width, depthwise = SIZES[size]
    model = YoloxModule(YoloPafpn(depth, width, depthwise=depthwise), YoloxHead(classes, width, depthwise=depthwise))
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.eps, layer.momentum = 1e-3, 0.03
    return model


def figures_torch(size):
    """The authors', in float64, and the shapes of their weights."""
    import torch
    from yolox.utils import postprocess

    model = model_torch(size).double()
    shapes = {n: tuple(x.shape) for n, x in model.state_dict().items() if not n.endswith("num_batches_tracked")}
    weights = {name: torch.from_numpy(array) for name, array in weights_of(shapes).items()}
    model.load_state_dict(weights, strict=False)
    pixels = torch.from_numpy(images()[..., ::-1].transpose(0, 3, 1, 2).copy())
    labels = torch.zeros(len(BOXES), 6, 5, dtype=torch.float64)
    for i, (own, kinds) in enumerate(zip(BOXES, LABELS, strict=True)):
        for row, (box, kind) in enumerate(zip(own, kinds, strict=True)):
            x0, y0, x1, y1 = box
            labels[i, row] = torch.tensor([kind, (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0])
    with torch.no_grad():
        model.eval()
        model.head.decode_in_inference = False
        raw = model(pixels)
        model.head.decode_in_inference = True
        found = postprocess(model(pixels), CLASSES, 0.01, 0.65)
    model.train()
    model.head.use_l1 = True
    outputs = model(pixels, labels)
    outputs["total_loss"].backward()
    losses = [outputs[name] for name in ("total_loss", "iou_loss", "conf_loss", "cls_loss", "l1_loss")]
    logits = raw.numpy()
    logits[..., 4:] = np.log(logits[..., 4:]) - np.log1p(-logits[..., 4:])
    return shapes, {
        "outputs": logits,
        "losses": [x.item() for x in losses],
        "gradients": {name: parameter.grad.numpy() for name, parameter in model.named_parameters()},
        "statistics": {name: x.numpy() for name, x in model.named_buffers() if "running" in name},
        "detections": [_detections(each) for each in found],
    }


def _detections(found):
    """Box within the canvas, label and score of what is found, the best first."""
    if found is None:
        return np.zeros((0, 6))
    found = found.numpy()
    rows = np.concatenate([np.clip(found[:, :4], 0, SIDE), found[:, 6:], found[:, 4:5] * found[:, 5:6]], 1)
    some = (rows[:, 2] > rows[:, 0]) & (rows[:, 3] > rows[:, 1])
    return rows[some][np.argsort(-rows[some, 5], kind="stable")]


def golden_of(shapes, figures):
    """What is kept of figures: small arrays."""
    return {
        "shapes": np.array([" ".join([name, *map(str, shape)]) for name, shape in sorted(shapes.items())]),
        "outputs": figures["outputs"][:, ::29],
        "losses": np.array(figures["losses"]),
        "gradients": summary(figures["gradients"]),
        "statistics": summary(figures["statistics"]),
        "detections": np.concatenate([each[:20] for each in figures["detections"]]),
        "counts": np.array([len(each) for each in figures["detections"]]),
    }


def assert_same(found, expected):
    """Our golden figures are those of the authors."""
    np.testing.assert_allclose(found["outputs"], expected["outputs"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=1e-7)
    for name in ("gradients", "statistics"):
        norms = np.maximum(expected[name][:, :1], 1e-6 * expected[name][:, :1].max())
        np.testing.assert_allclose(found[name] / norms, expected[name] / norms, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found["counts"], expected["counts"])
    np.testing.assert_allclose(found["detections"], expected["detections"], rtol=1e-6, atol=1e-6)
