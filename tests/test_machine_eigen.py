"""Eigen computes convolutions where that is known to be faster, unless something is decided or XLA has begun."""

import os
import subprocess
import sys
from pathlib import Path

import jaxlib.version
import pytest

from jaxvision.machine import eigen

AVX2, AVX512 = "flags\t\t: fpu sse4_2 avx2 fma\n", "flags\t\t: fpu sse4_2 avx2 fma avx512f avx512bw\n"
ROOT = Path(__file__).parent.parent
CHOSEN = "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution"
PROGRAM = """
import os, pathlib, sys
import numpy as np
from jaxvision.machine import eigen
eigen.PROCESSOR = pathlib.Path(sys.argv[1])
if "late" in sys.argv:
    import jax
    jax.devices()
eigen.ask()
print(os.environ.get("XLA_FLAGS"), eigen.convolves(), end=" ")
import jax
import jax.numpy as jnp
from jaxvision.nn.conv import convolve
rng = np.random.default_rng(0)
images, kernel = rng.normal(size=(2, 9, 8, 64)), rng.normal(size=(3, 3, 64, 64))
padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
expected = sum(padded[:, i : i + 9, j : j + 8] @ kernel[i, j] for i in range(3) for j in range(3))
call = jax.jit(lambda x, k: convolve(x, k, padding=1)).lower(jnp.float32(images), jnp.float32(kernel)).compile()
np.testing.assert_allclose(call(jnp.float32(images), jnp.float32(kernel)), expected, rtol=1e-3, atol=1e-3)
print("__ynn" in call.as_text())
"""
BUILT = """
import os, pathlib, sys
from jaxvision.machine import eigen
eigen.PROCESSOR = pathlib.Path(sys.argv[1])
from jaxvision.run.config import build
build(pathlib.Path(sys.argv[2]), {}, [])
print(eigen.convolves())
"""


@pytest.fixture
def processor(tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nmodel name\t: some avx512f\n{AVX2}")
    monkeypatch.setattr(eigen, "PROCESSOR", file)
    monkeypatch.setattr(eigen, "_version", lambda: (0, 10))
    return file


def test_it_is_asked_for_beside_what_is_set(processor):
    assert eigen.with_eigen({}) == {"XLA_FLAGS": CHOSEN, eigen.OURS: "1"}
    assert eigen.with_eigen({"XLA_FLAGS": " --xla_a=1", "A": "b"}) == {
        "XLA_FLAGS": f"--xla_a=1 {CHOSEN}",
        eigen.OURS: "1",
        "A": "b",
    }


@pytest.mark.parametrize(
    "environment",
    [
        {"XLA_FLAGS": f"{eigen.FLAG}=+individual_convolution"},
        {"XLA_FLAGS": CHOSEN},
        {"XLA_FLAGS": "/a/file/of/flags"},
        {"JAX_PLATFORMS": "cuda"},
    ],
)
def test_what_is_decided_stays(processor, environment):
    assert eigen.with_eigen(environment) == environment
    assert eigen.without_eigen(environment) == environment


@pytest.mark.parametrize("flags", [None, "--xla_a=1"])
def test_what_was_added_is_taken_back_on_another_processor(processor, monkeypatch, flags):
    before = {"XLA_FLAGS": flags} if flags else {}
    chosen = eigen.with_eigen({**before, "A": "b"})
    assert eigen.without_eigen(chosen) == {**before, "A": "b"}
    processor.write_text(AVX512)
    monkeypatch.setattr(os, "environ", chosen)
    monkeypatch.setattr(eigen, "_flags_are_read", lambda: False)
    eigen.ask()
    assert chosen == {**before, "A": "b"}


@pytest.mark.parametrize("told", [AVX512, "flags\t\t: fpu sse4_2 avx\n", "Features\t: fp asimd\n", None])
def test_other_processors_keep_what_xla_takes(processor, told):
    processor.unlink()
    if told:
        processor.write_text(told)
    assert eigen.with_eigen({}) == {}


@pytest.mark.parametrize("version", [(0, 8), (0, 12), (1, 0), ()])
def test_versions_on_which_the_flag_was_not_tried_do_not_get_it(processor, monkeypatch, version):
    monkeypatch.setattr(eigen, "_version", lambda: version)
    assert eigen.with_eigen({}) == {}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (None, False),
        (CHOSEN, True),
        (f"--xla_a=1 {CHOSEN} --xla_b=2", True),
        (f"{eigen.FLAG}=", True),
        (f"{CHOSEN} {eigen.FLAG}=+individual_convolution", False),
    ],
)
def test_the_last_of_several_flags_counts(monkeypatch, flags, expected):
    monkeypatch.setattr(os, "environ", {"XLA_FLAGS": flags} if flags else {})
    assert eigen.convolves() is expected


def run(*command):
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", eigen.OURS)}
    done = subprocess.run([sys.executable, "-c", *map(str, command)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


KNOWN = jaxlib.version.__version_info__[:2] in eigen.VERSIONS


def test_xla_takes_the_flag_and_does_not_convolve_by_ynnpack(processor):
    assert run(PROGRAM, processor) == (f"{CHOSEN} True False\n" if KNOWN else "None False False\n")


def test_xla_that_has_read_its_flags_is_not_asked(processor):
    assert run(PROGRAM, processor, "late").startswith("None False")


def test_an_experiment_that_is_built_in_a_notebook_has_it(processor):
    assert run(BUILT, processor, ROOT / "experiments/quickstart.py") == f"{KNOWN}\n"
