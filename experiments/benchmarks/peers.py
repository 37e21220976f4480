"""Environment of the peers that the benchmarks run beside: `.peers` in the checkout, made once.

    python -m experiments.benchmarks.peers

Takes about 6 GB and some minutes. It has no jaxvision in it and no JAX. A name installs that package alone: a benchmark
tells which peers it misses, and runs with the others.
"""

import argparse
import json
import subprocess
import sys
import venv
from collections.abc import Sequence

from experiments.benchmarks.speed.contest import PEERS

PACKAGES = (
    "torch==2.14.1",
    "torchvision==0.29.1",
    "transformers==5.24.0",
    "timm>=1.0",
    "scipy>=1.13",  # transformers matches by it
    "pillow>=11",
    "numpy>=2.0",
    "pycocotools>=2.0.11",
    "faster-coco-eval>=1.6",
    "hotcoco>=1.3",
    "grain>=0.2.16",
    "onnxruntime>=1.20",
)
"""What is installed; RESULTS.md has the versions that were measured."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make the environment of the peers.", allow_abbrev=False)
    parser.add_argument("packages", nargs="*", help="these alone (all)")
    packages = parser.parse_args(argv).packages or PACKAGES
    if not python().exists():
        venv.create(PEERS, with_pip=True)
    return subprocess.run([python(), "-m", "pip", "install", "-q", *packages]).returncode


def python():
    """The Python of the environment."""
    return PEERS / "bin" / "python"


def versions() -> dict[str, str]:
    """The versions of what is installed there, by name; empty without the environment."""
    if not python().exists():
        return {}
    script = "import json, importlib.metadata as m; print(json.dumps({d.name.lower(): d.version for d in m.distributions()}))"
    return json.loads(subprocess.run([python(), "-c", script], capture_output=True, check=True, text=True).stdout)


if __name__ == "__main__":
    sys.exit(main())
