"""Eigen computes convolutions where that is known to be faster, unless something is decided or XLA has begun."""

import os
import subprocess
import sys

import jaxlib.version
import pytest

from jaxvision.machine import eigen

AVX2, AVX512 = "flags\t\t: fpu sse4_2 avx2 fma\n", "flags\t\t: fpu sse4_2 avx2 fma avx512f avx512bw\n"
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
print(os.environ.get("XLA_FLAGS"), eigen.computes())
import jax
import jax.numpy as jnp
from jaxvision.nn.conv import convolve
rng = np.random.default_rng(0)
images, kernel = rng.normal(size=(2, 9, 8, 64)), rng.normal(size=(3, 3, 64, 64))
padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
expected = sum(padded[:, i : i + 9, j : j + 8] @ kernel[i, j] for i in range(3) for j in range(3))
found = convolve(jnp.float32(images), jnp.float32(kernel), padding=1)
np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
"""


@pytest.fixture
def processor(tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nmodel name\t: some avx512f\n{AVX2}")
    monkeypatch.setattr(eigen, "PROCESSOR", file)
    monkeypatch.setattr(eigen, "_version", lambda: (0, 10))
    return file


def test_it_is_asked_for_beside_what_is_set(processor):
    assert eigen.asking({}) == {"XLA_FLAGS": CHOSEN}
    assert eigen.asking({"XLA_FLAGS": "--xla_a=1"}) == {"XLA_FLAGS": f"--xla_a=1 {CHOSEN}"}


def test_what_is_decided_stays(processor):
    assert eigen.asking({"XLA_FLAGS": f"{eigen.FLAG}=+individual_convolution"}) == {}
    assert eigen.asking(eigen.asking({})) == {}


@pytest.mark.parametrize("told", [AVX512, "flags\t\t: fpu sse4_2 avx\n", "Features\t: fp asimd\n", None])
def test_other_processors_keep_what_xla_takes(processor, told):
    processor.unlink()
    if told:
        processor.write_text(told)
    assert eigen.asking({}) == {}


@pytest.mark.parametrize("version", [(0, 8), (0, 12), (1, 0), ()])
def test_versions_on_which_the_flag_was_not_tried_do_not_get_it(processor, monkeypatch, version):
    monkeypatch.setattr(eigen, "_version", lambda: version)
    assert eigen.asking({}) == {}


@pytest.mark.parametrize("late", [False, True])
def test_xla_takes_the_flag_and_convolves_and_is_not_asked_when_it_has_begun(processor, late):
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-c", PROGRAM, str(processor), *["late"] * late]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    known = jaxlib.version.__version_info__[:2] in eigen.VERSIONS
    assert done.stdout == (f"{CHOSEN} True\n" if known and not late else "None False\n")
