"""Sweeps under a real SLURM of two nodes: as an array, on both nodes, preempted, killed, without its controller."""

import os
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import jax
import numpy as np
import pytest
import slurm_cluster
from orbax.checkpoint import v1 as ocp
from slurm_cluster import wait_until

from jaxvision import run
from launch import plan, state

pytestmark = pytest.mark.slurm
HERE = Path(__file__).parent
ROOT = HERE.parent
FIELDS = ("--config.checkpoint=10", "--config.steps=20", "--config.evaluate=10", "--config.network.channels=(4,4)")
LONG = ("--config.checkpoint=50", "--config.evaluate=600", "--config.log=10", *FIELDS[3:])
PACE = {"PACE": "0.02"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes of one core, in which compilations are kept on disk, as for all tests."""
    with slurm_cluster.Cluster(tmp_path_factory.mktemp("slurm") / "root") as started:
        started.environment["PYTHONPATH"] = f"{HERE}:{ROOT}:{os.environ.get('PYTHONPATH', '')}"
        yield started


@pytest.fixture(autouse=True)
def nothing_queued(cluster):
    yield
    wait_until(lambda: not cluster.queue())


def launch(cluster, folder, *more, module="sweep", status=0, variables=PACE):
    """What the launcher says; it returns at once."""
    flags = (
        [f"--config={HERE}/paced_experiment.py", f"--workdir={folder}", "--backend=slurm"]
        if module == "sweep"
        else [str(folder)]
    )
    done = subprocess.run(
        [sys.executable, "-m", f"launch.{module}", *flags, *more],
        cwd=ROOT, env={**cluster.environment, **variables}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == status, (done.stdout, done.stderr)
    return done.stderr


def states(folder):
    return state.states(plan.read(folder), folder)


def wait_for(cluster, folder, wanted, seconds=120):
    """The states, when they are as wanted."""
    try:
        return wait_until(lambda: found if wanted(found := states(folder)) else None, seconds)
    except AssertionError:
        logs = {path: path.read_text()[-2000:] for path in [*folder.glob("slurm/*_log.*"), *folder.glob("logs/*")]}
        raise AssertionError((states(folder), cluster.queue(), logs)) from None


def all_done(found):
    return all(at.kind == "done" for at in found.values())


def alone(folder, name, workdir):
    """A run of a plan by the command itself, in one process, in another workdir."""
    (member,) = [each for each in plan.read(folder).members if each.name == name]
    fields = [f"--config.{field}={text}" for field, text in member.overrides.items()]
    command = [
        sys.executable,
        "-m",
        "jaxvision.main",
        f"--config={HERE}/paced_experiment.py",
        f"--workdir={workdir}",
        "--no-report",
    ]
    subprocess.run([*command, *fields], cwd=ROOT, check=True, capture_output=True, timeout=300)


def arrays(workdir):
    """All arrays of the newest checkpoint."""
    with warnings.catch_warnings(), ocp.training.Checkpointer(str(workdir / "checkpoints")) as checkpoints:
        warnings.simplefilter("ignore")
        found = flat(checkpoints.load(checkpoints.latest.step)["state"])
    keys = [name for name, value in found.items() if jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key)]
    return {name: np.asarray(jax.random.key_data(found[name]) if name in keys else found[name]) for name in found}


def flat(tree):
    return {jax.tree_util.keystr(path): value for path, value in jax.tree_util.tree_leaves_with_path(tree)}


def test_a_sweep_is_one_array_and_is_submitted_once(cluster, tmp_path):
    sweep = ("--sweep.learning_rate=0.001,0.01", "--cores=1", "--memory=2", *FIELDS)
    with ThreadPoolExecutor() as two_launchers:
        said = sorted(two_launchers.map(lambda _: launch(cluster, tmp_path, *sweep).splitlines()[-1][:17], range(2)))
    assert said == ["0 runs were submi", "2 runs were submi"]
    numbers = [path.name.split("_")[:2] for path in (tmp_path / "slurm").glob("*_submitted.pkl")]
    assert len({number for number, _ in numbers}) == 1
    assert sorted(index for _, index in numbers) == ["0", "1"]
    assert "0 runs were submitted" in launch(cluster, tmp_path, *sweep)  # they are queued, run, or are done
    wait_for(cluster, tmp_path, all_done)
    assert "0 runs were submitted" in launch(cluster, tmp_path, *sweep)
    assert [len(state.starts(tmp_path / name)) for name in states(tmp_path)] == [1, 1]


def test_a_run_on_two_nodes_equals_that_of_one_process(cluster, tmp_path):
    launch(cluster, tmp_path, "--sweep.learning_rate=0.01", "--config.precision=float64", "--nodes=2", *FIELDS)
    wait_for(cluster, tmp_path, all_done)
    (name,) = states(tmp_path)
    held = state.lease.read(tmp_path / name)
    assert held.host in slurm_cluster.NODES
    assert "2 cpu devices" in (tmp_path / f"logs/{name}.log").read_text()
    alone(tmp_path, name, tmp_path / "alone")
    workdirs = (tmp_path / "alone", tmp_path / name)
    one, two = (flat(run.load(workdir, weights="current").variables) for workdir in workdirs)
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert value.dtype == np.float64, key
        np.testing.assert_allclose(two[key], value, rtol=0, atol=1e-9, err_msg=key)


def test_a_preempted_run_is_queued_again_and_ends_as_if_nothing_had_been(cluster, tmp_path):
    sweep = ("--sweep.steps=600,20", *LONG)
    launch(cluster, tmp_path, *sweep)
    name, short = states(tmp_path)
    wait_for(cluster, tmp_path, lambda found: found[name].step >= 60 and found[short].kind == "done")
    wait_until(lambda: len(cluster.queue()) == 1)
    ((job, _),) = cluster.queue().items()
    end = tmp_path / "end"
    script = f"while [ ! -e {end} ]; do sleep 0.2; done"
    cluster.run("sbatch", "--partition=urgent", "--nodes=2", "--output=/dev/null", "--wrap", script)
    preempted = wait_for(cluster, tmp_path, lambda found: found[name].kind == "interrupted")[name]
    assert (0 < preempted.step < 600, preempted.detail) == (True, "SIGTERM")
    wait_until(lambda: cluster.queue().get(job) == "PENDING")  # not failed, and nobody has to submit it
    said = launch(cluster, tmp_path, *sweep)
    assert f"{name}: is job {job}, PENDING" in said
    assert "0 runs were submitted" in said
    end.touch()
    soon(cluster, job)
    wait_for(cluster, tmp_path, lambda found: found[name].step >= preempted.step + 60)
    cluster.run("scancel", "--signal=USR2", job)  # what SLURM sends before the time limit
    soon(cluster, job)
    wait_for(cluster, tmp_path, all_done)
    first, second, third = (each["step"] for each in state.starts(tmp_path / name))
    assert (first, second) == (0, preempted.step)
    assert second + 60 <= third < 600
    alone(tmp_path, name, tmp_path / "alone")
    workdirs = (tmp_path / name, tmp_path / "alone")
    interrupted, uninterrupted = ((workdir / "metrics.jsonl").read_bytes() for workdir in workdirs)
    assert interrupted == uninterrupted
    interrupted, uninterrupted = map(arrays, workdirs)
    assert interrupted.keys() == uninterrupted.keys()
    for key, value in uninterrupted.items():
        np.testing.assert_array_equal(interrupted[key], value, err_msg=key)


def soon(cluster, job):
    """Lets a requeued job start now, not in two minutes; a node refuses a job that it has ended less than 3 s before."""

    def starts():
        with suppress(AssertionError):  # it has begun since
            cluster.run("scontrol", "update", f"JobId={job}", "StartTime=now")
        return cluster.queue().get(job) != "PENDING"

    wait_until(lambda: cluster.queue().get(job) == "PENDING")
    time.sleep(4)
    wait_until(starts)


def test_a_killed_run_is_told_as_failed_and_goes_on(cluster, tmp_path):
    sweep = ("--sweep.learning_rate=0.01", "--retries=0", "--config.steps=3000", *LONG)
    launch(cluster, tmp_path, *sweep)
    wait_for(cluster, tmp_path, lambda found: all(at.step > 100 for at in found.values()))
    (name,) = states(tmp_path)
    os.kill(state.lease.read(tmp_path / name).process, signal.SIGKILL)
    wait_until(lambda: not cluster.queue())
    assert [at.kind for at in states(tmp_path).values()] == ["lost"]
    assert f"{name}: failed: killed by SIGKILL" in "".join(
        path.read_text() for path in tmp_path.glob("slurm/*_log.err")
    )
    said = launch(cluster, tmp_path, *sweep)
    assert f"{name}: was lost" in said
    assert "goes on from step" in said
    wait_for(cluster, tmp_path, lambda found: all(at.kind == "running" for at in found.values()))
    launch(cluster, tmp_path, module="cancel")
    wait_until(lambda: not cluster.queue())
    assert [at.kind for at in states(tmp_path).values()] == ["interrupted"]
    first, second = state.starts(tmp_path / name)
    assert (first["step"], second["step"] >= 50) == (0, True)


def test_without_its_controller_nothing_is_lost_and_nothing_runs_twice(cluster, tmp_path):
    sweep = ("--sweep.learning_rate=0.001,0.003,0.01", *LONG, "--config.steps=250")
    launch(cluster, tmp_path, *sweep)
    wait_for(cluster, tmp_path, lambda found: sum(at.kind == "running" for at in found.values()) == 2)
    cluster.stop_controller()
    try:
        said = launch(cluster, tmp_path, *sweep, status=2)
        assert said.count("\n") == 1
        assert "SLURM can't be reached" in said
        assert "failed" not in said
        found = wait_for(cluster, tmp_path, lambda found: sum(at.kind == "done" for at in found.values()) == 2)
        assert [at.kind for at in found.values()].count("waiting") == 1
    finally:
        cluster.start_controller()
    launch(cluster, tmp_path, *sweep)
    wait_for(cluster, tmp_path, all_done)
    assert [len(state.starts(tmp_path / name)) for name in states(tmp_path)] == [1, 1, 1]
