"""Members together: each way gives every member's own run, and whole sweeps in one process end as others do."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import cached_property, partial
from itertools import islice
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxvision import experiment as experiments
from jaxvision.run import config, devices
from launch import cancel, plan, state
from launch.together import families, meeting, steps

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
NETWORKS = ROOT / "experiments/benchmarks/together_networks.py"
TINY = ROOT / "tests/tiny_experiment.py"
SEEDS, STEPS = 8, 20


class Members:
    """Eight runs of a network, of other seeds, rates and dropout, as state and batches."""

    def __init__(self, network):
        batch = "32" if network == "mlp" else "16"  # BatchNorm over few examples makes much of rounding: 1e-8 with four
        base = {"network": network, "size": "0.25", "precision": "float64", "batch_size": batch, "steps": str(STEPS)}
        more = [{}, {"learning_rate": "0.004", "dropout": "0.5", "ema": "0.9", "weight_decay": "0.1"}]
        texts = [{**base, "seed": str(seed), **more[seed % 2]} for seed in range(SEEDS)]
        self.mesh = devices.device_mesh()
        self.experiments = [config.build(NETWORKS, each).experiment for each in texts]
        self.batches = [list(islice(each.train.batches(0), STEPS)) for each in self.experiments]
        traced = [(str(i), families.traced(each, self.mesh)) for i, each in enumerate(self.experiments)]
        (self.family,) = families.families(traced)

    def first(self, member):
        layout = partial(devices.layout, self.mesh)
        return experiments.first_state_of(self.experiments[member], layout=layout)

    def run(self, step, member):
        current, losses = self.first(member), []
        for batch in self.batches[member]:
            current, metrics = step(current, batch)
            losses.append(metrics["loss"])
        return numbers(current, losses)

    @cached_property
    def own_steps(self):
        """The steps of the first two, as each is compiled alone; those of the others are the same."""
        return [devices.step_on(self.mesh, each)[0] for each in self.experiments[:2]]

    def alone(self, member):
        return self.run(self.own_steps[member % 2], member)

    def jointly(self, way, at_once):
        """All members, so many of them in a program."""
        like = devices.state_on(self.mesh, self.experiments[0])
        step = meeting.joint_step(self.family, way, self.mesh, like)
        parts = [range(first, first + at_once) for first in range(0, SEEDS, at_once)]
        return [each for part in parts for each in self._part(step, part, jax.tree.structure(like))]

    def _part(self, step, members, structure):
        values = [self.family.values(str(i)) for i in members]
        states = [jax.tree.leaves(self.first(i)) for i in members]
        losses = [[] for _ in states]
        for row in zip(*(self.batches[i] for i in members), strict=True):
            done = step(values, states, [jax.tree.leaves(batch) for batch in row])
            states = [each for each, _ in done]
            for i, (_, metrics) in enumerate(done):
                losses[i].append(jax.tree.unflatten(self.family.metrics[str(members[i])], metrics)["loss"])
        return [numbers(jax.tree.unflatten(structure, s), each) for s, each in zip(states, losses, strict=True)]


def numbers(current, losses):
    return jax.device_get((current.replace(key=jax.random.key_data(current.key)), losses))


@pytest.mark.parametrize(("network", "unrolled"), [("mlp", SEEDS), ("cnn", 2), ("vit", 2)])
def test_each_way_gives_every_members_own_run(network, unrolled, float64):
    """XLA takes long to compile eight convolutional networks side by side, so that they are unrolled in pairs."""
    members = Members(network)
    shared = steps.Steps(members.family)
    ways = {"vmap": members.jointly("vmap", SEEDS), "unroll": members.jointly("unroll", unrolled)}
    for i, experiment in enumerate(members.experiments):
        wanted = members.alone(i)
        found = {way: each[i] for way, each in ways.items()}
        found["turns"] = members.run(shared.step_on(str(i), members.mesh, experiment)[0], i)
        assert wanted[0].step == STEPS
        for way, each in found.items():
            different = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9, err_msg=f"{way}, member {i}")
            jax.tree.map(different, each, wanted)
    assert shared._compiled._cache_size() == 1  # type: ignore[union-attr]


SWEEP = (
    *(sys.executable, "-m", "launch.sweep", f"--config={TINY}", "--sweep.learning_rate=0.001,0.01", "--seeds=0,1"),
    *("--config.checkpoint=2", "--config.steps=40", "--config.evaluate=10"),
)


def start(folder, way, *more):
    environment = {**os.environ, "PYTHONPATH": f"{TINY.parent}:{ROOT}"}
    streams = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [*SWEEP, f"--workdir={folder}", f"--together={way}", *more]
    return subprocess.Popen(command, cwd=ROOT, env=environment, **streams)


def logs(folder):
    planned = plan.read(folder)
    assert {at.kind for at in state.states(planned, folder).values()} == {"done"}
    return {each.name: (folder / each.name / "metrics.jsonl").read_bytes() for each in planned.members}


def test_turns_that_are_interrupted_and_killed_end_as_uninterrupted_ones(tmp_path):
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    process = start(whole, "turns")
    out, err = process.communicate(timeout=300)
    assert (process.returncode, "4 runs: 4 done" in out) == (0, True), err
    assert "4 of 4 runs are one program; they differ in learning_rate, seed" in err
    for number, (ended, runs) in {signal.SIGTERM: (75, 0), signal.SIGKILL: (-9, 1)}.items():
        launcher = start(parted, "turns")
        wait_for(parted, runs)
        launcher.send_signal(number)
        _, err = launcher.communicate(timeout=120)
        assert launcher.returncode == ended, err
    launcher = start(parted, "turns")
    _, err = launcher.communicate(timeout=300)
    assert (launcher.returncode, ": goes on" in err) == (0, True), err
    assert logs(parted) == logs(whole)
    starts = [[row["step"] for row in state.starts(parted / each.name)] for each in plan.read(parted).members]
    assert sorted(map(len, starts)) == [1, 1, 2, 2]
    first = plan.read(whole).members[0].name
    assert "compiled in" in (whole / "logs" / f"{first}.log").read_text()
    (family,) = json.loads((whole / "together.json").read_text())["families"]
    assert (len(family["members"]), family["inputs"]) == (4, 1)


def test_a_member_that_fails_in_turns_leaves_the_others(tmp_path):
    process = start(tmp_path, "turns", "--config.blow_up_at=3", "--stop-after-failures=2", "--retries=0")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    assert "2 failed, 2 waiting" in out
    assert "step 3: the loss, its gradient or the updated parameters are not finite" in err


def test_runs_that_step_together_are_cancelled_and_go_on(tmp_path):
    """float64, so that members of one program and of another end alike."""
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    fields = ("--config.precision=float64", "--config.steps=200", "--config.checkpoint=50", "--config.evaluate=100")
    launchers = [start(whole, "turns", *fields), start(parted, "unroll", *fields)]
    wait_for(parted, 3)
    assert cancel.start(parted) == 0
    _, err = launchers[1].communicate(timeout=300)
    assert launchers[1].returncode == 75, err
    assert {at.kind for at in state.states(plan.read(parted), parted).values()} <= {"interrupted", "done"}
    launchers.append(start(parted, "unroll", *fields))
    for launcher in launchers[::2]:
        _, err = launcher.communicate(timeout=300)
        assert launcher.returncode == 0, err
    for name, text in logs(parted).items():
        rows, wanted = ([json.loads(line) for line in each.decode().splitlines()] for each in (text, logs(whole)[name]))
        assert [row.keys() for row in rows] == [row.keys() for row in wanted]
        for row, other in zip(rows, wanted, strict=True):
            np.testing.assert_allclose(list(row.values()), list(other.values()), rtol=1e-7, atol=1e-9)
    assert "step 200" in (parted / "logs" / f"{name}.log").read_text()  # each prints into its own log


def wait_for(folder, runs, seconds=120):
    """Waits until one more run than this has begun, and is at step 10."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (folder / plan.FILE).exists():
            found = state.states(plan.read(folder), folder).values()
            if sum(at.step >= 10 for at in found) > runs:
                return
        time.sleep(0.05)
    raise AssertionError(f"no run has come so far: {list(folder.iterdir())}")
