"""The mesh: layouts, what is exchanged, runs that are the same on any number of devices and processes."""

import json
import math
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from jaxvision.data.loading import spec
from jaxvision.run import devices, watch

HERE = Path(__file__).parent
TINY = HERE / "tiny_experiment.py"


def on_devices(count: int) -> dict[str, str]:
    return {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((3, 3, 64, 128), PartitionSpec(None, None, None, "fsdp")),
        ((3, 3, 128, 64), PartitionSpec(None, None, "fsdp")),
        ((4096, 10), PartitionSpec("fsdp")),
        ((64, 64), PartitionSpec("fsdp")),  # of equal axes the first
        ((129, 131), PartitionSpec()),  # nothing that 4 divides
        ((8, 8), PartitionSpec()),  # too small to be worth it
        ((), PartitionSpec()),
    ],
)
def test_an_array_is_split_along_its_longest_divisible_axis(shape, expected):
    mesh = AbstractMesh((2, 4), devices.AXES)
    layout = devices.layout(mesh, {"x": jax.ShapeDtypeStruct(shape, jnp.float32)})["x"]
    assert layout.spec == expected
    whole = AbstractMesh((8, 1), devices.AXES)
    assert devices.layout(whole, jax.ShapeDtypeStruct(shape, jnp.float32)).spec == PartitionSpec()


def test_the_mesh_refuses_a_split_that_the_devices_do_not_allow():
    with pytest.raises(ValueError, match=r"fsdp is 3; it must divide the number of devices, 1"):
        devices.device_mesh(3)
    with pytest.raises(ValueError, match=r"fsdp is 0"):
        devices.device_mesh(0)


def test_a_batch_that_the_devices_can_not_share_is_refused():
    mesh = AbstractMesh((4, 2), devices.AXES)
    devices.check_divisible(spec(16, (8, 8), 1), mesh)
    with pytest.raises(ValueError, match="a batch of 12 examples can't be split over 8 devices"):
        devices.check_divisible(spec(12, (8, 8), 1), mesh)


def test_a_batch_and_a_state_that_no_memory_holds_are_refused(monkeypatch):
    monkeypatch.setattr(devices, "memory", lambda: 1_000_000)
    mesh = devices.device_mesh()
    devices.check_divisible(spec(1_000, (8, 8), 3), mesh)
    with pytest.raises(
        ValueError, match=r"a batch of 100,000,000 examples takes 23\.3 GB, and there are 0\.0 GB of memory"
    ):
        devices.check_divisible(spec(100_000_000, (8, 8), 3), mesh)
    state = {"a": jax.ShapeDtypeStruct((1000, 200), jnp.float32), "key": jax.eval_shape(lambda: jax.random.key(0))}
    devices.check_memory(mesh, state)
    state["b"] = jax.ShapeDtypeStruct((10**6, 10**6), jnp.float32)
    with pytest.raises(
        ValueError, match=r"parameters and optimizer state take 4,000\.0 GB; there are 0\.0 GB of memory"
    ):
        devices.check_memory(mesh, state)


def test_a_step_is_compiled_by_a_thread_and_not_again_by_its_call():
    mesh = devices.device_mesh()
    everywhere, along = devices.replicated(mesh), devices.along_batch(mesh)
    step = jax.jit(
        lambda state, batch: (state + batch.sum(), {}), donate_argnums=0, out_shardings=(everywhere, everywhere)
    )
    like = jax.ShapeDtypeStruct((), jnp.float32, sharding=everywhere)
    state = jax.device_put(jnp.float32(1), everywhere)
    batch = jax.device_put(np.ones(8, np.float32), along)
    watch._count_compilations()
    before = watch._compilations()  # of this thread
    with devices.compiling(step, like, jax.ShapeDtypeStruct((8,), jnp.float32, sharding=along)) as compiled:
        for _ in range(2):
            state, _ = compiled(state, batch)
    assert watch._compilations() == before
    assert state == 17


def test_what_is_exchanged_is_read_from_the_text_of_a_program():
    program = """
      %all-reduce = (f32[3,4]{1,0}, bf16[8]{0}) all-reduce(%a, %b), channel_id=1, to_apply=%sum
      ROOT %g = f32[16]{0} all-gather-start(%c), dimensions={0}
      %d = f32[2]{0} add(%e, %f)
    """
    found = [(each.kind, each.shape, each.bytes) for each in devices.collectives(program)]
    assert found == [("all-reduce", (3, 4), 48), ("all-reduce", (8,), 16), ("all-gather", (16,), 64)]


@pytest.fixture(scope="module")
def facts():
    done = subprocess.run(
        [sys.executable, HERE / "on_eight_devices.py"],
        env=on_devices(8),
        stdout=subprocess.PIPE,
        check=True,
        timeout=600,
    )
    return json.loads(done.stdout)


@pytest.mark.slow
def test_each_gradient_is_summed_over_the_devices_once(facts):
    plain = facts["plain"]
    size = sum(math.prod(shape) for shape in plain["parameters"])
    arrays = [(kind, tuple(shape), count) for kind, shape, count in plain["exchanged"] if shape]
    assert {kind for kind, _, _ in arrays} == {"all-reduce"}
    assert sum(count for _, _, count in arrays) == 4 * size  # beside it only scalars: loss, accuracy
    normed = facts["normed"]
    kernels = Counter(tuple(sorted(shape)) for shape in normed["parameters"] if len(shape) == 4)  # axes in any order
    assert Counter(tuple(sorted(shape)) for _, shape, _ in normed["exchanged"] if len(shape) == 4) == kernels
    size = sum(math.prod(shape) for shape in normed["parameters"])
    statistics = sum(count for _, shape, count in normed["exchanged"] if shape) - 4 * size
    assert 0 < statistics < 0.01 * 4 * size  # of BatchNorm, over the whole batch


@pytest.mark.slow
def test_split_parameters_are_gathered_and_images_stay(facts):
    gathered = [tuple(shape) for kind, shape, _ in facts["fsdp"]["exchanged"] if kind == "all-gather"]
    parameters = [tuple(shape) for shape in facts["fsdp"]["parameters"]]
    assert gathered
    assert not Counter(gathered) - Counter(2 * parameters)  # once for the prediction, once for the gradient
    moved = sum(count for kind, shape, count in facts["fsdp"]["exchanged"] if kind != "all-gather" and shape)
    assert moved == 4 * sum(math.prod(shape) for shape in parameters)


@pytest.mark.slow
def test_with_fsdp_each_device_holds_its_eighth(facts):
    held = facts["resnet18"]
    assert len(held["per_device"]) == 8
    assert max(held["per_device"]) == pytest.approx(held["bytes"] / 8, rel=0.05)
    assert held["arguments"] == pytest.approx(held["bytes"] / 8, rel=0.05)  # the compiled step's own count


FIELDS = {
    "precision": "float64",
    "steps": 20,
    "log": 1,
    "checkpoint": 10,
    "evaluate": 20,
    "keep_latest": 5,
    "test_examples": 1997,
    "network.channels": "(16, 32)",
}


def command(workdir, *more):
    fields = [f"--config.{name}={value}" for name, value in FIELDS.items()]
    return [
        sys.executable,
        "-m",
        "jaxvision.main",
        f"--config={TINY}",
        f"--workdir={workdir}",
        "--no-report",
        *fields,
        *more,
    ]


def run(workdir, devices, *more):
    done = subprocess.run(
        command(workdir, *more), env=on_devices(devices), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    return workdir


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_processes(workdir, count, *more):
    meeting = [f"--coordinator=127.0.0.1:{free_port()}", f"--processes={count}", "--patience=120"]
    started = [
        subprocess.Popen(
            command(workdir, *meeting, f"--process={i}", *more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(count)
    ]
    for process in started:
        printed, _ = process.communicate(timeout=300)
        assert process.returncode == 0, printed
    return workdir


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {
        "one": run(folder / "one", 1),
        "eight": run(folder / "eight", 8),
        "four by two": run(folder / "four_by_two", 8, "--fsdp=2"),
        "two processes": run_processes(folder / "two", 2),
    }


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def check_same(some, others, within=1e-9):
    assert len(some) == len(others)
    for a, b in zip(some, others, strict=True):
        assert a.keys() == b.keys()
        np.testing.assert_allclose([a[key] for key in a], [b[key] for key in a], rtol=within, atol=within)


@pytest.mark.slow
@pytest.mark.parametrize("other", ["eight", "four by two", "two processes"])
def test_losses_and_evaluation_are_the_same_on_any_devices(runs, other):
    expected = rows(runs["one"])
    assert sum("loss" in row for row in expected) == 20
    assert expected[-1]["test/accuracy"] * 1997 == pytest.approx(round(expected[-1]["test/accuracy"] * 1997))
    check_same(expected, rows(runs[other]))


@pytest.mark.slow
@pytest.mark.parametrize(("saved_on", "devices"), [("eight", 2), ("four by two", 1), ("two processes", 1)])
def test_a_run_resumes_on_other_devices(runs, tmp_path, saved_on, devices):
    shutil.copytree(runs[saved_on], tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/20")
    before = rows(tmp_path / "run")
    run(tmp_path / "run", devices)
    check_same(before, rows(tmp_path / "run"))
    assert (tmp_path / "run/checkpoints/20").is_dir()


def test_a_block_that_ends_does_not_wait_for_a_compilation():
    going_on, compiled = threading.Event(), []

    class Slow:
        def lower(self, state, batch):
            return self

        def compile(self):
            going_on.wait(20)
            compiled.append(True)

    with pytest.raises(KeyError), devices.compiling(Slow(), None, None):
        raise KeyError
    assert not compiled
    going_on.set()
