"""What a run leaves for comparisons: rows of its last evaluation, hashes of its first and last parameters."""

import hashlib
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest

from jaxvision import run
from jaxvision.errors import WorkdirError
from jaxvision.experiment import first_state_of
from jaxvision.run import config, hashes, rows, workdir

FILE = Path(__file__).with_name("linear_experiment.py")


@pytest.fixture(scope="module")
def built():
    return config.build(FILE, {})


@pytest.fixture(scope="module")
def whole(built, tmp_path_factory):
    return run.train(built[0], tmp_path_factory.mktemp("rows") / "run", built[1], report=False)


def sha256_by_hand(params, prefix=""):
    """Names, types, shapes and bytes of nested dicts, in the order of the whole names."""
    flat = {}

    def walk(tree, prefix):
        for name, value in tree.items():
            walk(value, f"{prefix}{name}/") if isinstance(value, dict) else flat.update({prefix + name: value})

    walk(params, "")
    text = b""
    for name in sorted(flat):
        array = np.asarray(flat[name])
        text += f"{name} {array.dtype} {tuple(array.shape)}\n".encode() + array.tobytes()
    return hashlib.sha256(text).hexdigest()


def test_the_metrics_follow_from_the_rows(built, whole):
    table = rows.read(whole.workdir, "test")
    assert table.step == whole.step
    metric = built[0].evaluations["test"].metric
    assert {f"test/{name}": value for name, value in metric.compute(table.columns).items()} == whole.metrics
    assert (np.diff(table.columns["index"]) > 0).all()


def test_hashes_are_those_of_the_parameters(built, whole):
    found = hashes.read(whole.workdir)
    first = first_state_of(built[0])
    assert found["first"] == (0, sha256_by_hand(jax.device_get(first.params)))
    model = run.load(whole.workdir, "latest", weights="current")
    assert found["last"] == (whole.step, sha256_by_hand(jax.device_get(model.variables["params"])))
    assert found["first"].sha256 != found["last"].sha256


@pytest.mark.parametrize("damage", ["removed", "half"])
def test_a_finished_run_writes_rows_again_that_are_lost(built, whole, damage, caplog):
    path = whole.workdir / "rows/test.npz"
    content = path.read_bytes()
    path.unlink()
    if damage == "half":
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(WorkdirError, match=r"rows/test.npz can't be read"):
            rows.read(whole.workdir, "test")
    run.train(built[0], whole.workdir, built[1], report=False)
    assert path.read_bytes() == content
    assert ("the evaluation is made again" in caplog.text) == (damage == "half")


def test_changed_hashes_are_told(whole, caplog):
    path = whole.workdir / workdir.PARAMETERS
    text = path.read_text()
    path.write_text(text.replace(f'"step": {whole.step}', '"step": 1'))
    with pytest.raises(WorkdirError, match=r"parameters.json was changed"):
        hashes.read(whole.workdir)
    hashes.note(whole.workdir, "last", hashes.Hash(whole.step, "0"))
    assert "it is written anew" in caplog.text
    path.write_text(text)


def test_half_precision_columns_are_stored_as_float32(tmp_path):
    scores = np.asarray([0.5, 1.25], ml_dtypes.bfloat16)
    rows.write(tmp_path, 3, {"a": {"scores": scores, "index": np.arange(2)}})
    columns = rows.read(tmp_path, "a").columns
    assert columns["scores"].dtype == np.float32
    assert columns["scores"].tolist() == [0.5, 1.25]
    assert rows.read(tmp_path, "b") is None
