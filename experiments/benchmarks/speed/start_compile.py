"""Compiles the training step of one detector and prints how long that took, as JSON; nothing is kept on disk.

python -m experiments.benchmarks.speed.start_compile detr
"""

import argparse
import json
import sys
import time

import jax

from jaxvision.run import config, devices
from jaxvision.types import Batch

FILES = {
    "ssd": "coco_ssd300",
    "yolo": "coco_yolov3",
    "yolox": "coco_yolox",
    "retinanet": "coco_retinanet",
    "faster_rcnn": "coco_faster_rcnn",
    "mask_rcnn": "coco_mask_rcnn",
    "detr": "coco_detr",
    "yolact": "coco_yolact",
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the compilation of a detector's training step.")
    parser.add_argument("name", choices=FILES)
    parser.add_argument("--small", action="store_true", help="the detectors of experiments/shapes.py")
    flags = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    file, given = f"experiments/{FILES[flags.name]}.py", {}
    if flags.small:
        file, given = "experiments/shapes.py", {"detector": flags.name}
    experiment = config.build(file, given).experiment
    mesh = devices.device_mesh()
    step, like = devices.step_on(mesh, experiment)
    batch: Batch = devices.batch_on(mesh, experiment.train.spec)
    lowered = step.lower(like, batch)
    clock, processor = time.perf_counter(), time.process_time()
    lowered.compile()
    json.dump({"clock": time.perf_counter() - clock, "processor": time.process_time() - processor}, sys.stdout)


if __name__ == "__main__":
    main()
