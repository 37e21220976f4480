"""Folder of an export: model files, their loaders, an example with its answer, and a manifest; whole or not at all."""

import datetime
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxvision.errors import ExportError
from jaxvision.run import hashes
from jaxvision.run.digest import sha256
from jaxvision.run.prediction import Model, with_rows
from jaxvision.trust.export.formats import FORMATS, Format, check_installed
from jaxvision.trust.export.program import EXAMPLES, Program, example_of, placing, program_of
from jaxvision.trust.export.trial import tried
from jaxvision.trust.lighter.onnx_task import COLLECTION

LOADERS = Path(__file__).parent / "loaders"
MANIFEST = "manifest.json"
VERSION = 1
"""Version of the layout of the folder."""


def export(model: Model, folder: Path, formats: Sequence[str], command: str = "") -> dict[str, Any]:
    """Writes a model in these formats into a folder; returns its manifest.

    Every file is run again, by its loader in a fresh process without this package, and compared with what the model
    predicts. The folder is written beside and renamed; one with an earlier export is replaced.

    Args:
      model: from `run.load`.
      folder: where the export is to be.
      formats: of `FORMATS`.
      command: how to do it again, for the manifest and the messages of loaders.

    Raises:
      ExportError: for a format that is not installed, a model that can't be had in one, a file that gives other answers, and
        a folder that holds something else.
    """
    check_installed(formats)
    check_free(folder)
    if COLLECTION in model.variables and set(formats) != {"onnx"}:
        raise ExportError("the model is an ONNX file, and is exported as it is: --format=onnx alone")
    example = example_of(model.preprocessing, with_rows(model.spec, EXAMPLES))
    program = program_of(model.task, jax.device_get(model.variables), example, len(model.classes))
    with replacing_folder(folder) as partial:
        write_example(partial / "example.npz", program)
        manifest = described(model, program) | {"command": command, "formats": {}}
        for name in formats:
            with naming_format(name):
                manifest["formats"][name] = written(name, FORMATS[name], program, partial, manifest)
        _write(partial, manifest)
    return manifest


def written(name: str, format: Format, program: Program, folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """What the manifest says of a file that was written, and tried."""
    file, loader = folder / format.file, folder / f"load_{name}.py"
    said = {"file": format.file, "loader": loader.name, "versions": versions(format.packages)}
    said |= format.write(program, file) | {"sha256": _sha256(file)}
    shutil.copyfile(LOADERS / f"{name}.py", loader)
    _write(folder, manifest | {"formats": {name: said}})
    return said | {"differences": tried(loader, program.answer, format.tolerance)}


def write_example(file: Path, program: Program) -> None:
    """Writes the inputs of the example and their answers, `input/image`, `answer/boxes` and so on."""
    inputs = {f"input/{name}": x for name, x in program.example.items()}
    answers = {f"answer/{name}": x for name, x in program.answer.items()}
    np.savez(file, **inputs, **answers)  # type: ignore[arg-type]


def described(model: Model, program: Program) -> dict[str, Any]:
    """What the manifest says of the model, whatever the format."""
    height, width, channels = model.spec.image.shape[1:]
    return {
        "version": VERSION,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "classes": model.classes,
        "canvas": {"height": height, "width": width, "channels": channels, "values": "0-255, content top left"},
        "placing": placing(model.preprocessing, (height, width)),
        "inputs": inputs_of(program),
        "outputs": [
            {"name": k, "dtype": x.dtype.name, "shape": x.shape[1:]} for k, x in sorted(program.answer.items())
        ],
        "settings": program.notes,
        "checkpoint": {"step": model.step, "weights": model.weights, "sha256": hashes.sha256(model.variables)},
        "versions": versions(("jaxvision", "jax", "flax", "numpy")),
    }


def inputs_of(program: Program) -> list[dict[str, Any]]:
    """Name, type and shape of one row of every input, in order."""
    return [{"name": name, "dtype": x.dtype.name, "shape": x.shape} for name, x in program.inputs.items()]


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of installed packages, by the names that they are imported under."""
    found = metadata.packages_distributions()
    return {name: metadata.version(found.get(name, [name])[0]) for name in packages}


@contextmanager
def naming_format(name: str) -> Iterator[None]:
    """Inside this block an ExportError says which format it is about."""
    try:
        yield
    except ExportError as error:
        raise ExportError(f"{name}: {error}") from error


def check_free(folder: Path) -> None:
    """Raises ExportError for a folder that holds something else than an earlier export."""
    if folder.exists() and not (folder.is_dir() and ((folder / MANIFEST).is_file() or not any(folder.iterdir()))):
        raise ExportError(f"{folder} holds something else than an export; it is left as it is")


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A new folder beside this one, to fill in a `with` block; it takes its place if the block ends without an error."""
    partial = folder.with_name(f".{uuid.uuid4().hex}.partial")
    partial.mkdir()
    old = partial.with_suffix(".old")
    try:
        yield partial
        if folder.exists():
            os.replace(folder, old)
        os.replace(partial, folder)
    finally:
        if old.exists() and not folder.exists():
            os.replace(old, folder)
        for each in (partial, old):
            shutil.rmtree(each, ignore_errors=True)


def _write(folder: Path, manifest: dict[str, Any]) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _sha256(file: Path) -> str:
    """SHA-256 of a file, or of all files of a folder by name."""
    if file.is_file():
        return sha256(file.read_bytes())
    paths = sorted(path for path in file.rglob("*") if path.is_file())
    return sha256("".join(f"{path.relative_to(file)} {sha256(path.read_bytes())}\n" for path in paths).encode())
