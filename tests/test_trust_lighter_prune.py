"""`python -m jaxvision.lighten --method=prune|prune_channels`: runs that are evaluated, and train on with what is left."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from finished_run import one_line

from jaxvision import lighten, main
from jaxvision.optimize.pruning import fraction_of_zeros
from jaxvision.run import devices, restore

NARROW = Path(__file__).with_name("narrow_experiment.py")
KERNELS = ".*kernel"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lighter")
    assert main.main([f"--config={NARROW}", f"--workdir={folder / 'run'}", "--no-report"]) == 0
    return folder


def made(place, name, *flags):
    command = [f"--workdir={place / 'run'}", f"--output={place / name}", *flags]
    assert lighten.main(command) == 0
    return json.loads((place / name / "report" / "lighter.json").read_text())


def loaded(folder):
    """The experiment of a run, its newest step, current and averaged parameters."""
    run = restore.restore(folder)
    saved = restore.load_checkpoint(run, "latest", devices.device_mesh(1))
    return run.experiment, saved.step, saved.state.params, saved.state.ema["params"]


def trained_on(folder):
    assert main.main([f"--config={folder}/experiment.py", f"--workdir={folder}", "--no-report"]) == 0


@pytest.mark.parametrize("globally", [(), ("--globally",)])
def test_a_pruned_run_trains_on_and_its_zeros_stay(place, capsys, globally):
    name = "".join(["pruned", *globally])
    report = made(place, name, "--method=prune", "--sparsity=0.75", "--steps=5", *globally)
    said = capsys.readouterr().out
    assert "it trains on for 5 steps" in said
    assert report["figures"]["zeros"] == pytest.approx(0.75, abs=0.01)
    _, step, params, average = loaded(place / name)
    before = jax.device_get((params, average))
    assert step == 6
    trained_on(place / name)
    experiment, step, params, average = loaded(place / name)
    assert (step, experiment.steps) == (11, 11)
    for old, new in zip(before, (params, average), strict=True):
        assert fraction_of_zeros(new, KERNELS) == report["figures"]["zeros"]
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(b)[a == 0], 0), old, new)
    moved = jax.tree.map(lambda a, b: bool((a != np.asarray(b)).any()), before[0], params)
    assert all(jax.tree.leaves(moved))


@pytest.mark.slow
def test_a_run_without_channels_is_the_same_network_with_smaller_arguments(place, capsys):
    report = made(place, "narrow", "--method=prune_channels", "--keep=0.5", "--steps=3")
    assert report["figures"]["arguments"] == {"": {"channels": [[2], [3]]}}
    assert report["figures"]["flops"] < 0.6 * report["figures"]["flops_before"]
    assert "of the floating-point operations" in capsys.readouterr().out
    _, _, params, _ = loaded(place / "narrow")
    assert params["stage2_conv1"]["kernel"].shape == (3, 3, 2, 3)
    assert params["head"]["kernel"].shape == (2 * 2 * 3, 2)
    trained_on(place / "narrow")
    experiment, step, _, average = loaded(place / "narrow")
    assert (step, experiment.steps) == (9, 9)
    assert average["stage1_norm1"]["scale"].shape == (2,)
    again = made(place, "one", "--method=prune_channels", "--only=stage1_conv1")
    assert again["figures"]["arguments"] == {"": {"channels": [[2], [6]]}}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--method=prune", "--sparsity=1"], "sparsity is 1.0; it must be at least 0 and less than 1"),
        (
            ["--method=prune", "--only=heed/kernel"],
            "'heed/kernel' matches no parameter; the nearest names are head/kernel",
        ),
        (["--method=prune_channels", "--keep=0"], "keep is 0.0; it must be above 0 and at most 1"),
        (
            ["--method=prune_channels", "--only=stage7.*"],
            "matches no convolution that may lose channels; the nearest names",
        ),
        (
            ["--method=prune", "--keep=0.5"],
            "--keep is no option of --method=prune; it has: --sparsity, --only, --steps, --globally",
        ),
    ],
)
def test_what_is_not_allowed_is_told_in_one_line(place, capsys, flags, message):
    assert lighten.main([f"--workdir={place / 'run'}", f"--output={place / 'wrong'}", *flags]) != 0
    said = capsys.readouterr().err
    assert one_line(said)
    assert message in said
    assert not (place / "wrong").exists()


@pytest.mark.slow
def test_eight_devices_compute_what_one_does():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    command = [sys.executable, Path(__file__).parent / "sparse_on_eight_devices.py"]
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_ENABLE_X64": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert set(found) == {"pruned", "pruned globally", "quantised", "narrowed", "taught"}
    assert max(found.values()) < 1e-9, found
