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


def test_columns_of_bytes_are_stored_without_pickles(tmp_path):
    texts = [b"", b"a\0\n", b"\xff" * 300]
    column = np.empty(3, object)
    column[:] = texts
    rows.write(tmp_path, 3, {"a": {"masks": column, "index": np.arange(3)}, "b": {"masks": column[:0]}})
    with np.load(tmp_path / "rows/a.npz", allow_pickle=False) as file:
        assert {file[name].dtype for name in file.files} == {np.dtype(np.uint8), np.dtype(np.int64)}
    columns = rows.read(tmp_path, "a").columns
    assert set(columns) == {"index", "masks"}
    assert columns["masks"].dtype == object
    assert columns["masks"].tolist() == texts
    assert rows.read(tmp_path, "b").columns["masks"].shape == (0,)
    column[0] = "text"
    with pytest.raises(TypeError, match="'masks' of the rows holds objects of type str; allowed is bytes"):
        rows.write(tmp_path, 3, {"a": {"masks": column}})
    assert rows.read(tmp_path, "a").columns["masks"].tolist() == texts


def test_bytes_that_do_not_fit_their_lengths_are_damage(tmp_path):
    (tmp_path / "rows").mkdir()
    stored = {"__step__": np.asarray(1), "a__bytes__": np.zeros(3, np.uint8), "a__lengths__": np.array([1, 1])}
    np.savez(tmp_path / "rows/a.npz", **stored)
    with pytest.raises(WorkdirError, match="the lengths of column 'a' don't add up to its 3 bytes"):
        rows.read(tmp_path, "a")
