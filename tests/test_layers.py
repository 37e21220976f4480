"""Who may import whom, as data; any other arrow fails."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import jaxvision

ROOT = Path(jaxvision.__file__).parent
LOW = {"types", "errors", "machine"}
FACE = {*LOW, "experiment", "train", "data", "draw", "run", "commands"}
ALLOWED = {
    "types": set(),
    "errors": set(),
    "machine": set(),
    "masks": LOW,
    "ops": LOW,
    "nn": {*LOW, "ops"},
    "augment": {*LOW, "ops"},
    "metrics": {*LOW, "ops", "masks"},
    "draw": {*LOW, "ops", "metrics", "masks"},
    "tasks": {*LOW, "ops", "nn"},
    "commands": LOW,
    "formats": {*LOW, "commands", "masks"},
    "data": {*LOW, "commands", "formats", "masks"},
    "pretrained": {*LOW, "ops", "nn", "tasks", "data"},
    "gradient": LOW,
    "optimize": LOW,
    "train": {*LOW, "gradient"},
    "experiment": {*LOW, "gradient", "train", "optimize"},
    "run": {*LOW, "experiment", "train", "optimize", "data", "draw", "metrics", "pretrained", "masks"},
    "annotate": {
        *LOW,
        *("experiment", "train", "data", "draw", "metrics", "pretrained", "masks", "formats", "ops", "nn"),
        *("tasks", "run", "commands", "optimize"),
    },
    "trust": {
        *LOW,
        *("experiment", "train", "data", "draw", "metrics", "pretrained", "masks", "formats", "ops", "nn"),
        *("tasks", "run", "commands", "optimize", "augment"),
    },
    "__main__": {"commands"},
    **dict.fromkeys(("main", "predict", "augmented"), FACE),
    **{face: {*FACE, "trust"} for face in ("evaluate", "robustness", "calibrate", "explain", "export", "lighten")},
}
HEAVY = ("tensorflow", "tensorflow_datasets", "torch", "wandb", "av", "tensorboardX")
MODULES = sorted(ROOT.rglob("*.py"))
CHECKOUT = Path(__file__).parent.parent


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported(path: Path) -> set[str]:
    parts = (name.split(".") for name in imports(path))
    return {part[1] for part in parts if part[0] == "jaxvision" and len(part) > 1} - {"__version__"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_what_the_table_allows(path):
    if room(path) == "__init__":
        assert not rooms_imported(path)
        return
    assert room(path) in ALLOWED, f"{path} is of no known room"
    assert rooms_imported(path) <= ALLOWED[room(path)] | {room(path)}


LAUNCH = {*FACE, "optimize", "main"} - {"draw"}
"""What `launch/` may import of the package."""


@pytest.mark.parametrize("path", sorted((CHECKOUT / "launch").rglob("*.py")), ids=lambda path: path.stem)
def test_launch_imports_what_runs_need(path):
    assert rooms_imported(path) <= LAUNCH


def test_nothing_knows_launch_but_ablations():
    files = [*MODULES, *(CHECKOUT / "experiments").rglob("*.py")]
    known = {path.parent.name for path in files if any(name.split(".")[0] == "launch" for name in imports(path))}
    assert known == {"ablations"}


def test_the_table_has_no_circles():
    def above(name, seen=()):
        assert name not in seen, f"circle: {seen} {name}"
        for below in ALLOWED[name]:
            above(below, (*seen, name))

    for name in ALLOWED:
        above(name)


PROGRAMS = {
    "run.py",
    "peers.py",
    "gpu.py",
    "convolutions.py",
    *(path.name for path in (CHECKOUT / "experiments/benchmarks/speed").glob("*.py")),
}
"""Files of benchmarks that are run in the checkout as modules."""
EXPERIMENTS = sorted(path for path in (CHECKOUT / "experiments").rglob("*.py") if path.name not in PROGRAMS)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_imports_only_installed_packages(path):
    siblings = {other.stem for other in path.parent.glob("*.py")}
    for name in imports(path):
        assert name.split(".")[0] not in siblings | {"experiments"}
        assert not name.startswith("jaxvision.main")


def test_importing_any_module_imports_neither_tensorflow_nor_torch():
    names = [".".join(path.relative_to(ROOT.parent).with_suffix("").parts) for path in MODULES]
    names = [name.removesuffix(".__init__") for name in names]
    code = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
    code += f"found = [name for name in {HEAVY!r} if name in sys.modules]\nassert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_no_room_is_a_junk_room():
    assert not [p for p in MODULES if p.stem in ("utils", "helpers", "common", "misc")]


def test_the_command_line_parser_imports_nothing_heavy():
    code = "import sys, jaxvision.main as m\nm.parse(['--config=a', '--workdir=b'])\n"
    code += "assert not {'jax', 'flax', 'numpy', 'tensorflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
