"""Trains copies of one workdir on to their end, one after the other in this process, compiled once. Not a test itself.

Each is trained by `run.train`, as by a command of its own; what is a function of the experiment alone is shared.
"""

import hashlib
import json
import sys
import traceback
from pathlib import Path

import jax
import numpy as np

from jaxvision import experiment as experiments
from jaxvision import run
from jaxvision.run import config, devices, evaluation, provenance, training
from jaxvision.run.checkpoint import Checkpoints, Saved
from jaxvision.train import TrainState


def fingerprint(workdir: Path, experiment: experiments.Experiment, like: TrainState) -> list:
    """The steps of the checkpoints that are kept, a checksum of all the bits of each, and its notes."""
    with Checkpoints(workdir / "checkpoints", experiment.keep, read_only=True) as checkpoints:
        return [[step, *bits(checkpoints.load(step, like))] for step in checkpoints.steps]


def bits(saved: Saved) -> list:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(saved.state):
        key = jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        digest.update(np.asarray(jax.random.key_data(leaf) if key else leaf).tobytes())
    return [digest.hexdigest(), saved.notes]


def compute_once(experiment: experiments.Experiment) -> TrainState:
    """Makes every run of this process share what is a function of the experiment alone; returns the shapes of its state."""
    plan, first_state = training.prepare(experiment), None
    first_state_of, make_observe = experiments.first_state_of, evaluation.make_observe
    observers, made_with = {}, provenance.take(None)

    def first(*options, **more):
        nonlocal first_state
        first_state = first_state or first_state_of(*options, **more)
        return jax.tree.map(lambda x: x.copy(), first_state)  # a step takes the memory of the state before it

    def observe(predict, metric, everywhere):
        if metric not in observers:
            observers[metric] = make_observe(predict, metric, everywhere)
        return observers[metric]

    training.prepare = lambda experiment, *more: plan
    experiments.first_state_of = first
    evaluation.make_observe = observe
    provenance.take = lambda source: made_with
    return plan.like


def main(file: str, fields: dict[str, str], workdirs: dict[str, bool]) -> None:
    """Prints a line of JSON for each workdir: its fingerprint at the end, or why there is none."""
    devices.keep_compilations()
    experiment, recipe = config.build(file, fields, ["again"])
    like = compute_once(experiment)
    for workdir, report in workdirs.items():
        try:
            run.train(experiment, workdir, recipe, report=report)
            result = fingerprint(Path(workdir), experiment, like)
        except Exception:
            result = traceback.format_exc()
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))
