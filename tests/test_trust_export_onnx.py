"""Exports to ONNX, run by ONNX Runtime: python -m pytest -m onnx; it needs the extra `onnx` and jax2onnx by `--no-deps`."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from finished_run import finished_run, one_line
from test_trust_export import load_alone

HERE = Path(__file__).parent
pytestmark = pytest.mark.onnx
EXPECTED = {"small_cnn": "any", "vit": "any", "detr": 1, "yolox": 1, "mask_rcnn": 1}
"""Networks and tasks of every kind, and the batches that their files take."""


def test_files_give_the_answers_of_the_model(optimised):
    command = [sys.executable, "export_table.py", "--formats=onnx", *EXPECTED]
    done = subprocess.run(command, cwd=HERE, env=optimised, capture_output=True, text=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(each["name"], each.get("batch", each.get("error"))) for each in found] == list(EXPECTED.items())
    assert "come in another order" not in done.stderr
    assert all(each["difference"] < (1e-4 if each["batch"] == "any" else 1e-2) for each in found)


def test_a_run_is_exported_whole_and_a_damaged_file_is_named(tmp_path_factory, tmp_path, optimised):
    run = finished_run(tmp_path_factory.getbasetemp() / "finished_run")
    command = [
        sys.executable,
        "-m",
        "jaxvision.export",
        f"--workdir={run}",
        f"--output={tmp_path / 'out'}",
        "--format=onnx",
    ]
    done = subprocess.run(command, env=optimised, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["formats"]["onnx"]["batch"] == "any"
    assert max(manifest["formats"]["onnx"]["differences"].values()) < 1e-4
    assert "logits float32 (2, 3): differs by" in load_alone(tmp_path / "out", "onnx").stdout
    file = tmp_path / "out/model.onnx"
    file.write_bytes(file.read_bytes()[:-2000])
    said = load_alone(tmp_path / "out", "onnx").stderr
    assert "model.onnx can't be read by ONNX Runtime" in said
    assert "export it again: python -m jaxvision.export --workdir=" in said


LACKING = """
import logging, sys
logging.getLogger("jax2onnx.plugins.plugin_system").setLevel(logging.ERROR)
from jax2onnx.plugins import plugin_system
from jaxvision import export
plugin_system.import_all_plugins()
del plugin_system.PLUGIN_REGISTRY["conv_general_dilated"]
sys.exit(export.main(sys.argv[1:]))
"""


def test_an_operator_that_does_not_convert_is_named_with_its_place(tmp_path_factory, tmp_path, optimised):
    run = finished_run(tmp_path_factory.getbasetemp() / "finished_run")
    command = [sys.executable, "-c", LACKING, f"--workdir={run}", f"--output={tmp_path / 'out'}", "--format=onnx"]
    done = subprocess.run(command, env=optimised, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    place = "onnx: the operator conv_general_dilated does not convert; it is at jaxvision/nn/conv.py:"
    assert place in one_line(done.stderr)
    assert not list(tmp_path.iterdir())


def test_onnx_runtime_suppresses_as_the_package_does():
    """Equal scores, boxes that touch, labels apart: the greedy choice of a NumPy loop."""
    import jax
    import onnxruntime
    from jax2onnx import to_onnx

    from jaxvision.trust.export import onnx_nms

    random = np.random.default_rng(0)
    corner = random.integers(0, 12, (40, 2))
    boxes = np.concatenate([corner, corner + random.integers(1, 9, (40, 2))], 1).astype(np.float32)
    scores = random.integers(0, 6, 40).astype(np.float32) / 8
    valid, labels = random.uniform(size=40) > 0.2, random.integers(0, 3, 40).astype(np.int32)
    onnx_nms.register()
    operator = onnx_nms.operator(3)
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (boxes, scores, valid, labels)]
    model = to_onnx(lambda b, s, v, l: operator(b, s, v, 0.5, l), shapes, opset=21, input_names=["b", "s", "v", "l"])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (kept,) = session.run(None, {"b": boxes, "s": scores, "v": valid, "l": labels})
    assert kept.tolist() == greedy(boxes, scores, valid, labels)


def greedy(boxes, scores, valid, labels):
    area = lambda box: max(box[2] - box[0], 0) * max(box[3] - box[1], 0)
    kept = []
    for n in sorted(np.flatnonzero(valid), key=lambda n: (-scores[n], n)):
        for m in kept:
            shared = area([*np.maximum(boxes[n, :2], boxes[m, :2]), *np.minimum(boxes[n, 2:], boxes[m, 2:])])
            if labels[n] == labels[m] and shared / (area(boxes[n]) + area(boxes[m]) - shared) > 0.5:
                break
        else:
            kept.append(n)
    return [n in kept for n in range(len(boxes))]
