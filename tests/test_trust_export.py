"""Exports: every file gives the model's answers in a process without the package, and a folder is written whole or not."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from exports import NAMES
from finished_run import finished_run, one_line

import jaxvision
from jaxvision import export
from jaxvision.errors import ExportError
from jaxvision.trust.export import formats, program, stablehlo, writing
from jaxvision.trust.export.trial import Tolerance, compared

HERE = Path(__file__).parent
PACKAGE = Path(jaxvision.__file__).parent
EVERY_KIND = ("vit", "attributes", "fcn", "ssd", "detr", "mask_rcnn", "rcnn")


@pytest.fixture
def exported(tmp_path_factory, tmp_path, capsys):
    """Exports a finished run; gives the status, the folder and what was said."""
    run = finished_run(tmp_path_factory.getbasetemp() / "finished_run")

    def do(*flags, output=tmp_path / "out"):
        status = export.main([f"--workdir={run}", f"--output={output}", *flags])
        return status, output, capsys.readouterr()

    return do


def load_alone(folder, format="stablehlo"):
    """What the loader says in a process that can't import the package."""
    code = (
        f"import runpy, sys; sys.modules['jaxvision'] = None; runpy.run_path('load_{format}.py', run_name='__main__')"
    )
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


def test_a_run_is_exported_with_all_that_another_program_needs(exported, tmp_path):
    status, folder, said = exported()
    assert status == 0
    assert "its answers are equal to the model's" in said.out
    assert sorted(os.listdir(folder)) == ["example.npz", "load_stablehlo.py", "manifest.json", "model.stablehlo"]
    assert os.listdir(tmp_path) == ["out"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["classes"] == ["circle", "cross", "dot"]
    assert manifest["checkpoint"]["step"] in (4, 8, 12)
    assert [each["name"] for each in manifest["inputs"]] == ["image", "size"]
    assert manifest["placing"][1] == {"file": [24, 48], "content": [24, 24], "shows": [0, 0, 48, 24]}
    file = folder / "model.stablehlo"
    assert manifest["formats"]["stablehlo"]["sha256"] == writing._sha256(file)
    assert manifest["formats"]["stablehlo"]["batch"] == "any"
    whole = file.read_bytes()
    start = whole.index(b"ML\xefR") + 4  # where MLIR writes the version of its format
    for data in whole[:3000], whole[:start] + b"\x7f" + whole[start + 1 :]:  # cut off; of a later version
        file.write_bytes(data)
        text = load_alone(folder).stderr
        assert "model.stablehlo can't be read by JAX" in text
        assert f"to be read until {manifest['formats']['stablehlo']['readable_until']}" in text
        assert "Export it again: python -m jaxvision.export --workdir=" in text


def test_a_file_that_gives_other_answers_leaves_the_folder_as_it_was(exported, tmp_path, monkeypatch):
    (folder := tmp_path / "out").mkdir()
    (folder / "manifest.json").write_text("before")

    def wrong(found, file):
        return stablehlo.write(
            found._replace(run=lambda *inputs: {k: x * 1.001 for k, x in found.run(*inputs).items()}), file
        )

    other = formats.FORMATS["stablehlo"]._replace(write=wrong)
    monkeypatch.setattr(writing, "FORMATS", {"stablehlo": other})
    status, folder, said = exported(output=folder)
    assert status == 2
    assert "stablehlo: the file that was written differs: logits by" in one_line(said.err)
    assert [(each.name, each.read_text()) for each in folder.iterdir()] == [("manifest.json", "before")]
    assert os.listdir(tmp_path) == ["out"]
    (folder / "manifest.json").rename(folder / "diary.txt")
    status, _, said = exported(output=folder)
    assert status == 2
    assert "out holds something else than an export; it is left as it is" in one_line(said.err)


def test_what_is_not_known_or_not_installed_is_named(exported, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        exported("--format=stablehl")
    assert "'stablehl' is no format; did you mean 'stablehlo'?" in capsys.readouterr().err
    find = formats.importlib.util.find_spec
    lacking = "onnx", "onnxruntime", "jax2onnx", "tensorflow"
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None if name in lacking else find(name))
    for name, what in {
        "onnx": "jax2onnx, onnx, onnxruntime: pip install 'jaxvision[onnx]' && pip install --no-deps jax2onnx==0.17.1",
        "savedmodel": "tensorflow: pip install 'jaxvision[tensorflow]'",
        "tflite": "tensorflow: pip install 'jaxvision[tensorflow]'",
    }.items():
        status, folder, said = exported(f"--format=stablehlo,{name}")
        assert status == 2
        assert one_line(said.err) == f"jaxvision: --format={name} needs {what}"
        assert not folder.exists()


@pytest.mark.slow
def test_stablehlo_gives_the_same_bits_for_batches_of_any_size(optimised):
    command = [sys.executable, "export_table.py", "--formats=stablehlo", *EVERY_KIND]
    done = subprocess.run(command, cwd=HERE, env=optimised, capture_output=True, text=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    said = [tuple(each.get(key) for key in ("name", "format", "batch", "difference")) for each in found]
    assert said == [(name, "stablehlo", "any", 0.0) for name in EVERY_KIND]


def test_outputs_have_the_names_of_the_fields():
    one = np.zeros(3)
    tree = {"a": (one, {"b": one}), "c": one}
    assert sorted(program.named(tree)) == [".a.0", ".a.1.b", ".c"]
    assert list(program.named(one)) == [""]


def test_every_output_is_compared():
    answer = {"boxes": np.float32([[0, 0, 300, 300]]), "labels": np.int32([1]), "scores": np.float32([np.nan])}
    tolerance = Tolerance(1e-4, 1e-2)
    assert set(compared(answer, answer, tolerance).values()) == {0.0}
    near = answer | {"boxes": answer["boxes"] + np.float32(0.005)}
    assert 0.004 < compared(near, answer, tolerance)["boxes"] < 0.006
    for name, other in {"boxes": answer["boxes"] + 1, "labels": np.int32([2]), "scores": np.float32([0])}.items():
        with pytest.raises(ExportError, match=f"differs: {name} by"):
            compared(answer | {name: other}, answer, tolerance)
    with pytest.raises(ExportError, match="the file gives boxes; the model gives boxes, labels, scores"):
        compared({"boxes": answer["boxes"]}, answer, tolerance)


def test_detections_of_one_score_but_for_rounding_may_change_places(caplog):
    wanted = np.float32([[0.9, 0.5, 0.5 - 6e-8, 0.2]])
    answer = {"index": np.int32([[7, 5, 3, 1]]), "labels": np.int32([[0, 1, 0, 0]]), "scores": wanted}
    answer["boxes"] = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    moved = {name: x[:, [0, 2, 1, 3]] for name, x in answer.items()} | {"scores": wanted}
    assert compared(moved, answer, Tolerance(1e-4, 1e-2))["boxes"] == 0
    assert caplog.messages == ["2 detections whose scores are equal to 1e-06 come in another order"]
    for order in ([1, 0, 2, 3], [0, 1, 3, 2], [3, 2, 1, 0]):  # of scores that are apart
        with pytest.raises(ExportError, match="differs: index by"):
            compared({name: x[:, order] for name, x in answer.items()}, answer, Tolerance(1e-4, 1e-2))
        with pytest.raises(ExportError, match="differs: index by"):
            compared({k: x[:, order] for k, x in answer.items()} | {"scores": wanted}, answer, Tolerance(1e-4, 1e-2))


def networks():
    """Names of the classes of the package that make class scores of images."""
    for path in sorted((PACKAGE / "nn").glob("*.py")):
        for each in ast.parse(path.read_text()).body:
            calls = [f for f in getattr(each, "body", ()) if getattr(f, "name", "") == "__call__"]
            if any(f.args.args[1].arg == "images" and "b k" in ast.unparse(f.returns) for f in calls):
                yield each.name


def tasks():
    """Names of the functions of the package that make a task of something else than a task."""
    for path in sorted((PACKAGE / "tasks").glob("*.py")):
        for each in ast.parse(path.read_text()).body:
            if isinstance(each, ast.FunctionDef) and each.returns and ast.unparse(each.returns) == "Task":
                taken = [a.annotation and ast.unparse(a.annotation) for a in each.args.args]
                yield from [] if "Task" in taken else [each.name]


def test_the_table_has_every_network_and_task():
    lines = (HERE / "export_table.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    assert rows[0] == ["network or task", *formats.FORMATS]
    assert [row[0] for row in rows[2:]] == list(NAMES)
    assert all(len(row) == len(rows[0]) and all(row) for row in rows)
    text = "".join((HERE / f"{name}.py").read_text() for name in ("exports", "detectors", "segmenters"))
    words = set(re.findall(r"\w+", text))
    found = [*networks(), *tasks()]
    assert len(found) > 30
    assert sorted(set(found) - words - {"segmenter_on"}) == []  # that one is what the segmenters call


@pytest.mark.parametrize("name", formats.FORMATS)
def test_loaders_are_short_and_need_nothing_of_ours(name):
    text = (writing.LOADERS / f"{name}.py").read_text()
    assert len(text.splitlines()) <= 60
    assert "import jaxvision" not in text
    assert "from jaxvision" not in text
