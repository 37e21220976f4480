"""Side of jaxvision in the benchmarks `training` and `training_gpu`: the task, and the one training step, donated."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks.speed import scenes
from experiments.benchmarks.speed.contest import Work
from experiments.benchmarks.speed.weights import weights
from jaxvision.nn import resnet, vit
from jaxvision.nn.norm import FrozenBatchNorm
from jaxvision.pretrained import strict, timm, torchvision, torchvision_detection
from jaxvision.pretrained.detr import detr_sources
from jaxvision.pretrained.export import torch_named
from jaxvision.pretrained.strict import Sources
from jaxvision.pretrained.torch_layout import module_sources, transposed_kernel
from jaxvision.tasks import detr, faster_rcnn, mask_rcnn, retinanet, ssd, yolox
from jaxvision.tasks.classification import classification
from jaxvision.tasks.unet import UNet, unet
from jaxvision.train import TrainState, make_train_step
from jaxvision.types import Batch, Labels, Objects, SegmentationMap, Task, Variables

SSD_MEAN = tuple(255 * np.array([0.48235, 0.45882, 0.40784]))
"""torchvision's."""


class Made(NamedTuple):
    """What is trained, and on what."""

    task: Task
    batch: Batch
    optimizer: optax.GradientTransformation
    sources: Sources | None = None
    """Names of the weights in the peer; None: no peer."""
    outcome: Callable[[Variables, Batch], Sequence[jax.Array]] | None = None
    """What is compared of a network whose loss is random.

    None: the losses of two steps and the first gradient's norm; not in float32, the first loss alone.
    """


SGD = optax.sgd(1e-3, 0.9)
ADAMW = optax.adamw(1e-4, weight_decay=0.05)
CLIPPED_SGD = optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(1e-4, 0.9))
CLIPPED_ADAMW = optax.chain(optax.clip_by_global_norm(0.1), optax.adamw(1e-4, weight_decay=1e-4))


def step(network: str, batch: int, size: Sequence[int], dtype: str = "float32", **options: Any) -> Work:
    """Training steps of a network; the options are those of its function below."""
    made: Made = NETWORKS[network](batch, size, jnp.dtype(dtype), **options)
    state = start(made)
    run = jax.jit(make_train_step(made.task, made.optimizer), donate_argnums=0)

    def stepped(units: int) -> Mapping[str, Any]:
        nonlocal state
        metrics = {}
        for _ in range(units):
            state, metrics = run(state, made.batch)
        return jax.block_until_ready(metrics)

    def outcome() -> list[float]:
        if made.outcome is not None:
            return [float(each) for each in jax.jit(made.outcome)(state.variables, made.batch)]
        first, second = stepped(1), stepped(1)
        found = [float(first["loss"]), float(first["gradient_norm"]), float(second["loss"])]
        return found if dtype == "float32" else found[:1]

    return Work(stepped, outcome, device_bytes=gpu_bytes if jax.default_backend() == "gpu" else None)


def gpu_bytes() -> float:
    """The most that was used of the device."""
    return (jax.devices()[0].memory_stats() or {})["peak_bytes_in_use"]


def start(made: Made) -> TrainState:
    """The state before the first step, with the weights that the peer has."""
    key = jax.random.key(0)
    if made.sources is None:
        variables = jax.jit(made.task.init)(key, made.batch)
    else:
        spec = jax.eval_shape(made.task.init, key, made.batch)
        zeros = jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape), spec)
        named = torch_named(made.sources, zeros)
        shapes = {name: x.shape for name, x in named.items() if not name.endswith("num_batches_tracked")}
        variables = strict.load(made.sources(spec), weights(shapes), spec).variables
    params = jax.tree.map(jnp.asarray, variables["params"])
    rest = {name: jax.tree.map(jnp.asarray, tree) for name, tree in variables.items() if name != "params"}
    return TrainState(jnp.int32(0), params, rest, jax.jit(made.optimizer.init)(params), key)


def images_of(images: np.ndarray, target: Any) -> Batch:
    """Whole images with their targets, on the device."""
    count, height, width, _ = images.shape
    size, index = jnp.tile(jnp.int32([[height, width]]), (count, 1)), jnp.arange(count, dtype=jnp.int32)
    return Batch(jnp.asarray(images), size, size, index, index >= 0, target)


def classes_of(batch: int, size: Sequence[int], classes: int) -> Batch:
    """Images to classify."""
    given = scenes.classified(batch, size, classes)
    return images_of(given.images, Labels(jnp.asarray(given.labels)))


def objects_of(batch: int, size: Sequence[int], masks: bool = False) -> Batch:
    """Images with objects."""
    given = scenes.scene(batch, size)
    valid = jnp.ones(given.labels.shape, bool)
    drawn = jnp.asarray(given.masks) if masks else None
    target = Objects(jnp.asarray(given.boxes), jnp.asarray(given.labels), valid, ~valid, masks=drawn)
    return images_of(given.images, target)


def resnets(batch: int, size: Sequence[int], dtype: Any, depth: int, classes: int, stem: str) -> Made:
    """ResNets that classify."""
    network = getattr(resnet, f"resnet{depth}")(classes, stem=stem, dtype=dtype)
    task = classification(network, dtype=dtype)
    return Made(task, classes_of(batch, size, classes), SGD, torchvision.resnet_sources)


def vits(batch: int, size: Sequence[int], dtype: Any, form: str, classes: int, depth: int = 12) -> Made:
    """Vision transformers."""
    network = getattr(vit, form)(classes, depth=depth, dtype=dtype)
    return Made(classification(network, dtype=dtype), classes_of(batch, size, classes), ADAMW, timm.vit_sources)


def unets(batch: int, size: Sequence[int], dtype: Any, classes: int, width: int, depth: int = 4) -> Made:
    """U-Net with padded convolutions, and without dropout, as it is mostly used."""
    network = UNet(classes, width=width, depth=depth, padding=1, dropout=0.0, dtype=dtype)
    given = scenes.mapped(batch, size, classes)
    target = SegmentationMap(jnp.asarray(given.labels), jnp.ones(given.labels.shape, bool))
    return Made(unet(network, dtype=dtype), images_of(given.images, target), SGD, unet_sources)


def unet_sources(variables: Variables) -> dict:
    """The names of the peer's U-Net are ours."""
    up = {name: transposed_kernel for name in variables["params"] if name.endswith("upconv")}
    return module_sources(variables, lambda ours: ours, up)


def ssds(batch: int, size: Sequence[int], dtype: Any) -> Made:
    """SSD300 on VGG16."""
    network = ssd.ssd300_vgg16(scenes.CLASSES, dtype=dtype)
    task = ssd.ssd(network, ssd.SSD300, mean=SSD_MEAN, dtype=dtype)
    return Made(task, objects_of(batch, size), CLIPPED_SGD, torchvision_detection.ssd_sources)


def retinanets(batch: int, size: Sequence[int], dtype: Any, backbone: str = "resnet50") -> Made:
    """RetinaNet on a pyramid."""
    task = retinanet.retinanet(retinanet.retinanet_fpn(body(backbone, dtype), scenes.CLASSES), dtype=dtype)
    return Made(task, objects_of(batch, size), CLIPPED_SGD, torchvision_detection.retinanet_sources)


def faster_rcnns(batch: int, size: Sequence[int], dtype: Any, backbone: str = "resnet50") -> Made:
    """Faster R-CNN on a pyramid."""
    network = faster_rcnn.faster_rcnn_fpn(body(backbone, dtype), scenes.CLASSES)
    task = faster_rcnn.faster_rcnn(network, dtype=dtype)
    sources = torchvision_detection.faster_rcnn_sources
    return Made(task, objects_of(batch, size), CLIPPED_SGD, sources, partial(of_both_stages, network, dtype))


def mask_rcnns(batch: int, size: Sequence[int], dtype: Any, backbone: str = "resnet50") -> Made:
    """Mask R-CNN on a pyramid, with torchvision's geometry of masks."""
    network = mask_rcnn.with_mask_head(faster_rcnn.faster_rcnn_fpn(body(backbone, dtype), scenes.CLASSES))
    task = mask_rcnn.mask_rcnn(network, geometry="torchvision", dtype=dtype)
    sources = torchvision_detection.mask_rcnn_sources
    given = objects_of(batch, size, masks=True)
    return Made(task, given, CLIPPED_SGD, sources, partial(of_both_stages, network, dtype))


def body(name: str, dtype: Any) -> resnet.Backbone:
    """A residual network with frozen normalisation."""
    return getattr(resnet, name)(None, norm=FrozenBatchNorm, dtype=dtype).backbone


def of_both_stages(network: Any, dtype: Any, variables: Variables, batch: Batch) -> list[jax.Array]:
    """Mean absolute values of the finest map, and of what the heads say of anchors and of the objects' bounding boxes."""
    stages = faster_rcnn.Stages(
        network,
        *(faster_rcnn.FPN_SIZES, (0.5, 1.0, 2.0), faster_rcnn.pixels.IMAGENET_MEAN, faster_rcnn.pixels.IMAGENET_STD),
        *(faster_rcnn.DEFAULT_RPN, faster_rcnn.DEFAULT_ROI_HEADS, dtype),
    )
    model = {name: tree for name, tree in variables.items() if name != "ema"}
    maps, regions = network.apply(model, stages.images(batch), train=False, method="propose")
    found = [maps[0], jnp.concatenate([each[0].ravel() for each in regions])]
    boxes = batch.target.boxes
    found.append(network.apply(model, maps, boxes, train=False, method="classify")[0])
    if batch.target.masks is not None:
        found.append(network.apply(model, maps, boxes, train=False, method="segment"))
    return [jnp.abs(each.astype(jnp.float32)).mean() for each in found]


def detrs(batch: int, size: Sequence[int], dtype: Any, backbone: str = "resnet50", layers: int = 6) -> Made:
    """DETR with its dropout; what is compared is the loss without it."""

    def task(**dropout: float) -> Task:
        parts = {"encoder_layers": layers, "decoder_layers": layers, **dropout}
        return detr.detr(detr.DETR(body(backbone, dtype), scenes.CLASSES, dtype=dtype, **parts), dtype=dtype)

    def loss(variables: Variables, batch: Batch) -> list[jax.Array]:
        return [task(dropout=0.0).loss(variables, batch, jax.random.key(0))[0]]

    return Made(task(), objects_of(batch, size), CLIPPED_ADAMW, detr_sources, loss)


def yoloxs(batch: int, size: Sequence[int], dtype: Any, form: str = "yolox_s") -> Made:
    """YOLOX, which no peer has."""
    network = getattr(yolox, form)(scenes.CLASSES, dtype=dtype)
    return Made(yolox.yolox(network, dtype=dtype), objects_of(batch, size), CLIPPED_SGD)


NETWORKS: Mapping[str, Callable[..., Made]] = {
    **{"resnet": resnets, "vit": vits, "unet": unets, "ssd300": ssds, "retinanet": retinanets, "detr": detrs},
    **{"faster_rcnn": faster_rcnns, "mask_rcnn": mask_rcnns, "yolox": yoloxs},
}
