"""`python -m jaxvision.lighten`: what it writes is a run that other commands read, and what can't be done is told."""

import importlib.util
import json

import jax
import numpy as np
import pytest
from finished_run import finished_run, one_line

from jaxvision import evaluate, export, lighten, run
from jaxvision.run import restore, transfer
from jaxvision.run.devices import device_mesh, state_on
from jaxvision.trust.lighter import methods
from jaxvision.trust.lighter.onnx_task import by_onnx_runtime


def test_flags(capsys):
    flags = lighten.parse(["--workdir=a", "--output=b", "--method=int8", "--images=64", "--eval=x,y"])
    assert (flags.method, flags.options, flags.evaluations) == ("int8", {"images": 64}, ("x", "y"))
    assert lighten.parse(["--workdir=a", "--output=b", "--method=fold"]).options == {}
    for wrong in (["--images=0"], ["--eval=a,,b"], ["--config.seed=1"]):
        with pytest.raises(SystemExit):
            lighten.parse(["--workdir=a", "--output=b", "--method=fold", *wrong])
        assert one_line(capsys.readouterr().err)


def test_each_flag_of_a_method_is_an_option_of_one():
    needed = ["--workdir=a", "--output=b", "--method=fold"]
    flags = lighten.parse([*needed, "--images=64"])
    known = {option for method in methods.METHODS.values() for option in methods.options_of(method)}
    assert set(flags.options) <= known


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A finished run, and a folder for others."""
    return finished_run(tmp_path_factory.getbasetemp() / "finished_run"), tmp_path_factory.mktemp("lighter")


def told(capfd, *flags):
    capfd.readouterr()
    assert lighten.main(list(flags)) == 2
    return one_line(capfd.readouterr().err)


def test_what_can_not_be_done_is_told_and_leaves_nothing(place, capfd, monkeypatch):
    run_of, folder = place
    flags = [f"--workdir={run_of}", f"--output={folder / 'none'}"]
    assert "--method=flod: there is no such method; did you mean 'fold'" in told(capfd, *flags, "--method=flod")
    assert "--images is no option of --method=fold" in told(capfd, *flags, "--method=fold", "--images=3")
    assert "has no evaluation 'tset'" in told(capfd, *flags, "--method=fold", "--eval=tset")
    assert "--fsdp=3: lighten takes parameters whole" in told(capfd, *flags, "--method=fold", "--fsdp=3")
    (folder / "there").mkdir(exist_ok=True)
    (folder / "there/diary.txt").write_text("")
    there = f"--output={folder / 'there'}"
    assert "is there already: choose another folder" in told(capfd, flags[0], there, "--method=fold")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if "onnx" in name else find(name, *rest))
    said = told(capfd, *flags, "--method=int8")
    assert "--method=int8 needs jax2onnx, onnx, onnxruntime: pip install 'jaxvision[onnx]' && " in said
    with pytest.raises(ValueError, match=r"needs onnxruntime: pip install 'jaxvision\[onnx\]'"):
        by_onnx_runtime(None, 3, "a")  # type: ignore[arg-type]
    assert [path.name for path in folder.iterdir()] == ["there"]


@pytest.mark.slow
def test_a_folded_run_is_a_run(place, capfd):
    run_of, folder = place
    new = folder / "folded"
    assert lighten.main([f"--workdir={run_of}", "--method=fold", "--eval=test", f"--output={new}"]) == 0
    said = capfd.readouterr().out
    assert "2 of 2 BatchNorms folded" in said
    assert "test/accuracy" in said
    assert "blind/" not in said
    report = json.loads((new / "report/lighter.json").read_text())
    assert report["figures"] == {"folded": 2, "left": []}
    assert report["after"]["test"]["log_loss"] == pytest.approx(report["before"]["test"]["log_loss"], rel=1e-4)
    starts = [json.loads(line) for line in (new / "starts.jsonl").read_text().splitlines()]
    assert starts[0]["parent"] == str(run_of.absolute())
    before, after = (run.evaluate(each, names=["test"]).evaluations["test"].rows for each in (run_of, new))
    np.testing.assert_array_equal(before["predicted"], after["predicted"])
    assert evaluate.main([f"--workdir={new}", "--eval=test"]) == 0
    file = next((run_of.parent / "images").rglob("*.png"))
    (ours,), (theirs,) = (run.load(each).predict([file])[0].values() for each in (new, run_of))
    for mine, wanted in zip(ours, theirs, strict=True):
        assert mine == {"name": wanted["name"], "probability": pytest.approx(wanted["probability"], abs=1e-5)}
    assert "batch_stats" not in run.load(new).variables
    assert export.main([f"--workdir={new}", f"--output={folder / 'exported'}"]) == 0
    like = state_on(device_mesh(), restore.restore(new).experiment).averaged
    fresh = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
    filled = transfer.from_run(new)(fresh)
    assert np.abs(filled["params"]["stage1_norm1"]["bias"]).max() > 0
    capfd.readouterr()
    assert "has nothing to fold" in told(capfd, f"--workdir={new}", "--method=fold", f"--output={folder / 'twice'}")
    assert "it has no BatchNorm" in told(capfd, f"--workdir={new}", "--method=fold", f"--output={folder / 'twice'}")
