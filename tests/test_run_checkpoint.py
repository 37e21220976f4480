import hashlib
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvision.errors import CheckpointError
from jaxvision.experiment import Keep
from jaxvision.run.checkpoint import Checkpoints, DamagedCheckpoint
from jaxvision.run.digest import checksum, digest
from jaxvision.run.reader import load_only
from jaxvision.train import TrainState


def state(step=0, width=3):
    params = {
        "w": jnp.arange(width, dtype=jnp.float32) + step,
        "half": jnp.ones(4, jnp.bfloat16),
        "flag": jnp.array(True),
    }
    opt_state = optax.adamw(1e-3).init({"w": params["w"]})
    ema = {"params": {"w": params["w"] * 0.5}}
    return TrainState(jnp.int32(step), params, {"batch_stats": {}}, opt_state, jax.random.key(step), ema)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)


@pytest.fixture
def three(tmp_path):
    """A folder with the checkpoints 1, 2 and 3."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", Keep(latest=3))
    for step in (1, 2, 3):
        checkpoints.save(step, state(step), {"history": [{"step": step}]}, None)
    checkpoints.close()
    return tmp_path / "checkpoints"


def arrays_file(folder):
    """The file with the bytes of the arrays."""
    return max((folder / "state").glob("**/d/*"), key=lambda p: p.stat().st_size)


def test_state_and_notes_come_back_bit_for_bit(three):
    checkpoints = Checkpoints(three)
    saved = checkpoints.newest(state())
    assert saved.step == 3
    assert saved.notes == {"history": [{"step": 3}]}
    assert_same(saved.state, state(3))
    checkpoints.close()


def test_no_checkpoint_is_none(tmp_path):
    assert Checkpoints(tmp_path / "none").newest(state()) is None


def test_saving_the_same_step_again_changes_nothing(three):
    checkpoints = Checkpoints(three, Keep(latest=3))
    checkpoints.save(3, state(99), {}, None)
    assert_same(checkpoints.newest(state()).state, state(3))
    checkpoints.close()


@pytest.mark.parametrize(("mode", "best"), [("max", 2), ("min", 3)])
def test_latest_and_best_are_kept(tmp_path, mode, best):
    checkpoints = Checkpoints(tmp_path, Keep(latest=2, best=1, by="test/x", mode=mode))
    for step, x in ((1, 0.5), (2, 0.9), (3, 0.1), (4, float("nan")), (5, 0.6), (6, None)):
        checkpoints.save(step, state(step), {}, None if x is None else {"test/x": x})
    checkpoints.wait()
    assert checkpoints.steps == [best, 5, 6]
    assert checkpoints.best_step() == best
    checkpoints.close()


@pytest.mark.parametrize(("figures", "step"), [((0.5, 0.1), 1), ((0.1, 0.5), 2), ((float("nan"), float("nan")), 2)])
def test_the_best_is_taken_where_there_is_one_else_the_latest(tmp_path, figures, step):
    keep = Keep(latest=2, best=1, by="test/x")
    checkpoints = Checkpoints(tmp_path, keep)
    for number, x in enumerate(figures, start=1):
        checkpoints.save(number, state(number), {}, {"test/x": x})
    checkpoints.close()
    assert load_only(tmp_path, None, keep, state()).step == step
    if np.isnan(figures).all():
        with pytest.raises(CheckpointError, match="has no best checkpoint"):
            load_only(tmp_path, "best", keep, state())


@pytest.mark.parametrize(
    "damage", ["truncated", "emptied", "flipped", "deleted", "notes", "structure", "a digit", "a name"]
)
def test_a_damaged_checkpoint_falls_back_loudly_and_is_kept_aside(three, damage, caplog):
    notes = three / "3" / "_CHECKPOINT_METADATA"
    names = {"structure": three / "3" / "state" / "_METADATA", **dict.fromkeys(("notes", "a digit", "a name"), notes)}
    target = names.get(damage) or arrays_file(three / "3")
    content = target.read_bytes()
    if damage == "deleted":
        target.unlink()
    elif damage in ("a digit", "a name"):
        old, new = {"a digit": (b'[{"step": 3}]', b'[{"step": 2}]'), "a name": (b'"history"', b'"hystory"')}[damage]
        assert old in content
        target.write_bytes(content.replace(old, new))
    elif damage == "flipped":
        middle = len(content) // 2
        target.write_bytes(content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :])
    else:
        target.write_bytes(b"" if damage == "emptied" else content[: len(content) // 2])
    checkpoints = Checkpoints(three)
    saved = checkpoints.newest(state())
    assert saved.step == 2
    assert_same(saved.state, state(2))
    assert "3 is damaged" in caplog.text
    assert (three.with_name("checkpoints.damaged") / "3").is_dir()
    checkpoints.save(3, state(33), {}, None)
    assert_same(checkpoints.newest(state()).state, state(33))
    checkpoints.close()


@pytest.mark.parametrize("how", [shutil.copytree, shutil.move])
def test_a_checkpoint_under_the_name_of_another_step_is_not_believed(three, how, caplog):
    how(three / "2", three / "7")
    with Checkpoints(three) as checkpoints:
        assert checkpoints.newest(state()).step == 3
    assert "checkpoints/7 is damaged: it is the one of step 2, copied or renamed. It was moved to" in caplog.text
    assert [path.name for path in three.with_name("checkpoints.damaged").iterdir()] == ["7"]


BY_X = Keep(latest=1, best=1, by="test/x")


def scored(folder, *figures):
    """A folder with a checkpoint for each of these figures, from step 1 on, all of them kept."""
    with Checkpoints(folder, BY_X._replace(latest=9)) as checkpoints:
        for step, x in enumerate(figures, start=1):
            checkpoints.save(step, state(step), {}, {"test/x": x})
    return folder


def replace_in(path, old, new):
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))


@pytest.mark.parametrize("content", [b"0.95", b"NaN", b'"a"', b"0.75]"])
def test_an_altered_figure_chooses_no_best_checkpoint(tmp_path, caplog, content):
    folder = scored(tmp_path / "checkpoints", 0.5, 0.75, 0.25)
    replace_in(folder / "2/_CHECKPOINT_METADATA", b"0.75", content)
    assert load_only(folder, "best", BY_X, state()).step == 1
    assert "2 is damaged, the best of none: " in caplog.text
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "3"]
    caplog.clear()
    with Checkpoints(folder, BY_X._replace(latest=2)) as checkpoints:
        assert checkpoints.newest(state()).step == 3
        assert checkpoints.best_step() == 1
        checkpoints.save(4, state(4), {}, {"test/x": 0.0})
        checkpoints.wait()
        assert checkpoints.steps == [1, 3, 4]
    assert "2 is damaged" in caplog.text
    assert (tmp_path / "checkpoints.damaged/2").is_dir()


def test_an_altered_figure_that_was_never_finite_is_not_the_best(tmp_path):
    folder = scored(tmp_path / "checkpoints", float("nan"), float("nan"))
    replace_in(
        folder / "1/_CHECKPOINT_METADATA", b'"metrics": {}, "checksum"', b'"metrics": {"test/x": 1.0}, "checksum"'
    )
    assert load_only(folder, None, BY_X, state()).step == 2


def as_older_version(folder, figures):
    """Makes checkpoints those of an older version: notes without a checksum, metrics in a file of Orbax's own."""
    for step, x in enumerate(figures, start=1):
        path = folder / str(step) / "_CHECKPOINT_METADATA"
        content = json.loads(path.read_text())
        content["custom_metadata"] = {"notes": {"old": step}}
        path.write_text(json.dumps(content))
        (folder / str(step) / "metrics").mkdir()
        (folder / str(step) / "metrics/metrics").write_text(json.dumps({"test/x": x}))


@pytest.mark.parametrize("content", [None, "", '{"test/x": 0.7', "junk", "folder"])
def test_checkpoints_of_an_older_version_are_read_and_damaged_metrics_of_them_end_nothing(tmp_path, content, caplog):
    folder = scored(tmp_path / "checkpoints", 0.5, 0.75, 0.25)
    as_older_version(folder, (0.5, 0.75, 0.25))
    metrics = folder / "2/metrics/metrics"
    if content is None:
        assert load_only(folder, "best", BY_X, state()).step == 2
    else:
        metrics.unlink()
        metrics.mkdir() if content == "folder" else metrics.write_text(content)
        with pytest.raises(CheckpointError, match="2/metrics can't be read; remove it"):
            load_only(folder, 3, BY_X, state())
    with Checkpoints(folder, BY_X._replace(latest=3)) as checkpoints:
        saved = checkpoints.newest(state())
        assert (saved.step, saved.notes) == (3, {"old": 3})
        assert_same(checkpoints.load(2, state()).state, state(2))
        assert checkpoints.best_step() == (2 if content is None else 1)
    assert ("2/metrics can't be read and was moved aside" in caplog.text) == (content is not None)


def test_arrays_that_are_not_what_was_saved_are_noticed(three, monkeypatch):
    import jaxvision.run.checkpoint as room

    monkeypatch.setattr(room, "digest", lambda tree: jnp.uint32(1))
    checkpoints = Checkpoints(three)
    with pytest.raises(DamagedCheckpoint, match="3 is damaged: its arrays are not the ones that were saved"):
        checkpoints.load(3, state())


def test_nothing_readable_is_an_error_and_not_a_fresh_start(three):
    for step in (1, 2, 3):
        arrays_file(three / str(step)).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no checkpoint of .* can be read: .*3 is damaged: .*1 is damaged"):
        Checkpoints(three).newest(state())
    assert sorted(p.name for p in three.iterdir()) == ["1", "2", "3"]


def test_a_checkpoint_of_another_model_is_named_not_damaged(three):
    checkpoints = Checkpoints(three)
    with pytest.raises(
        CheckpointError, match=r"another model or optimizer: .*params/w is float32\[3\] there and float32\[5\] here"
    ):
        checkpoints.newest(state(width=5))
    other = state().replace(params={"v": jnp.ones(2)})
    with pytest.raises(CheckpointError, match=r"params/v is missing; .*params/\w+ is not expected"):
        checkpoints.newest(other)
    half = state().replace(ema={"params": {"w": jnp.zeros(3, jnp.bfloat16)}})
    with pytest.raises(CheckpointError, match=r"ema/params/w is float32\[3\] there and bfloat16\[3\] here"):
        checkpoints.newest(half)
    assert checkpoints.steps == [1, 2, 3]
    checkpoints.close()


def test_figures_that_come_later_are_added_to_a_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path, Keep(latest=1, by="test/x"))
    checkpoints.save(1, state(1), {"history": []}, None)
    assert checkpoints.best_step() is None
    checkpoints.save(1, state(1), {"history": [1]}, {"test/x": 0.5})
    checkpoints.wait()
    assert checkpoints.best_step() == 1
    assert checkpoints.newest(state()).notes == {"history": [1]}
    checkpoints.close()


def test_a_process_that_dies_while_a_checkpoint_is_replaced_loses_nothing(tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder, Keep(latest=1))
    checkpoints.save(1, state(1), {"history": []}, None)
    checkpoints.wait()
    checkpoints._set_aside(1)
    assert checkpoints.steps == []
    checkpoints.close()
    again = Checkpoints(folder, Keep(latest=1))
    assert_same(again.newest(state()).state, state(1))
    again.save(1, state(1), {"history": [1]}, {"test/x": 0.5})
    again.close()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]


def test_digest_sees_every_bit_and_place():
    tree = {"a": jnp.arange(10, dtype=jnp.float32), "b": jnp.ones(3, jnp.bfloat16), "k": jax.random.key(0)}
    base = int(digest(tree))
    assert int(digest(jax.tree.map(lambda x: x, tree))) == base
    flipped = tree["a"].at[4].set(np.nextafter(np.float32(4), np.float32(5)))
    swapped = tree["a"].at[jnp.array([1, 2])].set(jnp.array([2.0, 1.0]))
    others = [{**tree, "a": flipped}, {**tree, "a": swapped}, {**tree, "k": jax.random.key(1)}]
    assert len({base, *(int(digest(other)) for other in others)}) == 4


def test_digest_sees_signs_and_moved_values_wherever_they_are():
    kernel = jax.random.normal(jax.random.key(0), (3, 3, 8, 16))
    signs = kernel.at[0, 0, 0, 0].multiply(-1).at[2, 1, 5, 3].multiply(-1)
    assert len({int(digest({"k": each})) for each in (kernel, -kernel, signs, jnp.abs(kernel), kernel[::-1])}) == 5
    for value in (2.0, 1.0, -0.5):
        places = [int(digest(np.zeros(64, np.float32) + value * (np.arange(64) == place))) for place in range(64)]
        assert len(set(places)) == 64
    pair = [kernel, kernel + 1]
    assert int(digest(pair)) != int(digest(pair[::-1]))


@pytest.mark.parametrize("dtype", ["complex64", "int4", "uint4", "int8", "float16", "float8_e4m3fn", "bool", "uint32"])
def test_digest_of_every_type(dtype):
    array = jnp.arange(6).astype(dtype)
    others = [array.at[place].set(1 - array[place] if dtype != "bool" else ~array[place]) for place in range(6)]
    assert len({int(digest(each)) for each in (array, *others)}) == 7
    if dtype == "complex64":
        assert int(digest(array * 1j)) != int(digest(array))
    assert int(digest(array[:0])) == int(digest(array[:0]))


def digest_by_formula(tree):
    """The digest that versions before saved: the sum of each word times an odd number that its place gives."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        flat = np.asarray(leaf).reshape(-1)
        words = flat.astype(np.uint64) if flat.dtype == bool else flat.view(f"u{flat.dtype.itemsize}").astype(np.uint64)
        odd = (np.arange(len(words), dtype=np.uint64) * 2654435761 + 1) % 2**32 | 1
        total = (total * 31 + int((words * odd % 2**32).sum())) % 2**32
    return jnp.uint32(total)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_checkpoint_of_an_older_version_is_held_against_its_own_digest(tmp_path, monkeypatch, damaged):
    import jaxvision.run.checkpoint as room

    folder = tmp_path / "checkpoints"
    with monkeypatch.context() as patched:
        patched.setattr(room, "DIGEST", "digest")
        patched.setattr(room, "digest", lambda tree: digest_by_formula(tree) + jnp.uint32(damaged))
        patched.setattr(room.Checkpoints, "_prove", lambda *_: None)
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(1, state(1), {}, None)
    with Checkpoints(folder) as checkpoints:
        if damaged:
            with pytest.raises(DamagedCheckpoint, match="1 is damaged: its arrays are not the ones that were saved"):
                checkpoints.load(1, state())
        else:
            assert_same(checkpoints.newest(state()).state, state(1))
            checkpoints.save(2, state(2), {}, None)
            assert_same(checkpoints.newest(state()).state, state(2))


def test_a_checksum_is_of_the_data_and_not_of_its_text():
    value = {"b": [1, 2.5, None, "\u00e4"], "a": {"x": float("nan")}}
    again = json.loads(json.dumps(dict(reversed(value.items())), indent=3))
    assert checksum(value) == checksum(again)
    others = [
        {**value, "b": [1, 2.5000000000000004, None, "\u00e4"]},
        {**value, "c": 1},
        {"b": value["b"]},
        {**value, "b": []},
    ]
    assert len({checksum(each) for each in [value, *others]}) == 5
    text = b'{"a":{"x":NaN},"b":[1,2.5,null,"\\u00e4"]}'
    assert checksum(value) == hashlib.sha256(text).hexdigest()


def test_bad_mode_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'best'; allowed: 'max', 'min'"):
        Checkpoints(tmp_path, Keep(mode="best"))
    with pytest.raises(ValueError, match=r"keep.latest is 0 and keep.best 1; they must be at least 1 and 0"):
        Checkpoints(tmp_path, Keep(latest=0))


@pytest.mark.parametrize("name", ["a[1,2]", "a*?", "back\\slash", "~x #%", "a\u0308 \n"])
@pytest.mark.parametrize("linked", [False, True])
def test_a_path_may_have_any_letters(tmp_path, tmp_path_factory, monkeypatch, name, linked):
    elsewhere = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))
    if linked:  # as on a system that has no names for open folders
        monkeypatch.setattr("jaxvision.run.checkpoint.OPEN_FILES", tmp_path / "none")
    folder = tmp_path / name / "checkpoints"
    with Checkpoints(folder, Keep(latest=1)) as checkpoints:
        checkpoints.save(1, state(1), {"history": []}, None)
        checkpoints.save(2, state(2), {"history": []}, None)
    assert [path.name for path in folder.iterdir()] == ["2"]
    with Checkpoints(folder, read_only=True) as checkpoints:
        assert linked or not list(elsewhere.iterdir())  # nothing that a kill could leave
        assert_same(checkpoints.newest(state()).state, state(2))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_path_that_needs_a_link_is_told_where_none_can_be_made(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxvision.run.checkpoint.OPEN_FILES", tmp_path / "none")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(CheckpointError, match=r"for the letters \[ \] in .*a\[1\] it needs a link to it: "):
        Checkpoints(tmp_path / "a[1]")


def test_a_first_checkpoint_that_can_not_be_read_back_is_told_at_once(tmp_path, monkeypatch):
    import jaxvision.run.checkpoint as room

    digests = iter([jnp.uint32(1), jnp.uint32(2)])
    monkeypatch.setattr(room, "digest", lambda tree: next(digests))
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    with pytest.raises(CheckpointError, match="what was written can't be read back: .*1 is damaged"):
        checkpoints.save(1, state(1), {}, None)
    checkpoints.close()
