"""Exports to SavedModel and TFLite, run by TensorFlow and by its interpreter, in processes without the package."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from finished_run import finished_run
from test_trust_export import load_alone

from jaxvision.trust.export.plain import refused_operator
from jaxvision.trust.export.tensorflow_files import _reason

HERE = Path(__file__).parent
MLIR = """Could not translate MLIR to FlatBuffer.{at} error: 'vhlo.dynamic_gather_v1' op is not part of the vhlo support yet.
        attended = attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]).reshape(x.shape)
<unknown>:0: note: loc(fused["StatefulPartitionedCall:", "StatefulPartitionedCall"]): called from"""


@pytest.mark.slow
def test_files_give_the_answers_of_the_model(optimised):
    command = [sys.executable, "export_table.py", "--formats=savedmodel,tflite", "small_cnn", "vit", "ssd"]
    done = subprocess.run(command, cwd=HERE, env=optimised, capture_output=True, text=True, check=True)
    found = {(each["name"], each["format"]): each for each in map(json.loads, done.stdout.splitlines())}
    assert all(each.get("difference", 0) < 1e-4 for each in found.values())
    batches = {" ".join(key): each.get("batch") for key, each in found.items()}
    expected = {"small_cnn savedmodel": "any", "small_cnn tflite": "any", "vit savedmodel": "any", "vit tflite": 1}
    assert batches == expected | {"ssd savedmodel": 1, "ssd tflite": None}
    assert "the operator" in found["ssd", "tflite"]["error"]


@pytest.mark.slow
def test_a_run_is_exported_whole_and_damaged_files_are_named(tmp_path_factory, tmp_path, optimised):
    run = finished_run(tmp_path_factory.getbasetemp() / "finished_run")
    folder = tmp_path / "out"
    flags = f"--workdir={run}", f"--output={folder}", "--format=savedmodel,tflite"
    command = [sys.executable, "-m", "jaxvision.export", *flags]
    done = subprocess.run(command, env=optimised, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaders = ["load_savedmodel.py", "load_tflite.py"]
    assert sorted(os.listdir(folder)) == ["example.npz", *loaders, "manifest.json", "model.tflite", "savedmodel"]
    made = json.loads((folder / "manifest.json").read_text())["formats"]
    assert [each["batch"] for each in made.values()] == ["any", "any"]
    assert all(max(each["differences"].values()) < 1e-4 for each in made.values())
    assert all("tensorflow" in each["versions"] for each in made.values())
    (folder / "model.tflite").write_bytes((folder / "model.tflite").read_bytes()[:1000])
    shutil.rmtree(folder / "savedmodel/variables")
    (folder / "savedmodel/saved_model.pb").write_bytes(b"\x00" * 100)
    for name, file in {"savedmodel": "savedmodel", "tflite": "model.tflite"}.items():
        said = load_alone(folder, name).stderr
        assert f"{file} can't be read by" in said
        assert "xport it again: python -m jaxvision.export --workdir=" in said


def test_the_operator_and_its_place_are_read_from_what_tensorflow_says():
    import jaxvision

    place = f"{Path(jaxvision.__file__).parent}/nn/vit.py:62:29:"
    operator = "the operator vhlo.dynamic_gather_v1 does not convert"
    assert _reason(ValueError(MLIR.format(at=place))) == f"{operator}; it is at jaxvision/nn/vit.py:62:29"
    assert _reason(ValueError(MLIR.format(at="<unknown>:0:"))) == operator
    loaded = f"Cannot deserialize: {place} error: unregistered operation 'vhlo.composite_v2' found in dialect ('vhlo')"
    assert refused_operator(loaded).startswith(
        "the operator vhlo.composite_v2 does not convert; it is at jaxvision/nn/"
    )
    assert refused_operator("it's broken: an error") == ""
    assert _reason(ValueError("no  memory\nleft")) == "no memory left"
