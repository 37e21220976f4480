"""The tiny experiment, `PACE` seconds a step at least: tests interrupt it where they mean to. Not a test itself."""

import os
import time

from tiny_experiment import build as build_tiny
from tiny_experiment import get_config

__all__ = ["build", "get_config"]


def build(config):
    experiment = build_tiny(config)
    return experiment._replace(train=paced(experiment.train, float(os.environ.get("PACE", "0"))))


def paced(stream, seconds):
    def batches(*where):
        for batch in stream.batches(*where):
            time.sleep(seconds)
            yield batch

    return stream._replace(batches=batches)
