"""Every file of a workdir damaged in turn: each command gives the right result, or names the file in one line.

What a command can't go on with it refuses, and says how to go on; what it can do without it tells. A damage that changes
nothing that the command reads leaves the result as it is.
"""

import functools
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvision import evaluate, main, predict, run
from jaxvision.errors import UserError
from jaxvision.run import config, provenance

FILE = Path(__file__).with_name("linear_experiment.py")
PIXELS = np.random.default_rng(1).integers(0, 256, (4, 4), dtype=np.uint8)
IDENTITY = ("config.json", "data.json", "classes.json", "experiment.py", "code/linear_network.py")
INFORMATIVE = ("versions.json", "provenance.json", "timing.jsonl", "starts.jsonl", "command.txt", "git.patch")
LEFT = ("parameters.json", "rows/test.npz")


def emptied(path):
    path.write_bytes(b"")


def halved(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def junk(path):
    path.write_bytes(bytes(range(256))[::-1] * 4)


def one_digit(path):
    """Another digit in the middle; another byte, where there is no digit."""
    content = bytearray(path.read_bytes())
    places = [i for i, byte in enumerate(content) if 48 <= byte <= 57] or list(range(len(content)))
    content[places[len(places) // 2]] ^= 1
    path.write_bytes(content)


def removed(path):
    path.unlink()


def made_a_folder(path):
    path.unlink()
    path.mkdir()


DAMAGES = (emptied, halved, junk, one_digit, removed, made_a_folder)


@functools.cache
def built(learning_rate="0.125"):
    return config.build(FILE, {"learning_rate": learning_rate}, ["python", "a command"])


def resumed(workdir, learning_rate="0.125", fork=False):
    experiment, recipe = built(learning_rate)
    trained = run.train(experiment, workdir, recipe, report=False, fork=fork)
    return trained.step, trained.metrics


def forked(workdir):
    return resumed(workdir, "0.25", fork=True)


def evaluated(workdir):
    results = run.evaluate(workdir, "latest")
    return results.step, results.evaluations["test"].metrics


def best(workdir):
    results = run.evaluate(workdir)
    return results.step, results.evaluations["test"].metrics


def predicted(workdir):
    model = run.load(workdir, "latest")
    return model.step, model.predict([PIXELS])


class Made:
    """A run that was killed after its checkpoint of step 4, of 6 steps, and what an undamaged one gives."""

    def __init__(self, folder):
        self.folder, self.run = folder, folder / "run"
        experiment, recipe = built()
        self.whole = run.train(experiment, self.run, recipe, report=False)
        self.log = (self.run / "metrics.jsonl").read_bytes()
        shutil.rmtree(self.run / "checkpoints/6")
        (self.run / "git.patch").write_text("# repository 0\n")
        commands = (resumed, forked, evaluated, best, predicted)
        self.right = {command: command(self.copy()) for command in commands}
        assert self.right[resumed] == (6, self.whole.metrics)

    def copy(self):
        shutil.rmtree(self.folder / "copy", ignore_errors=True)
        return shutil.copytree(self.run, self.folder / "copy")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provenance, "take", functools.cache(provenance.take))  # it asks git, and every package
        yield Made(tmp_path_factory.mktemp("damage"))


class Tried:
    """What a command made of a workdir that is damaged: its result or its error, and all that it said."""

    def __init__(self, command, workdir, capfd, caplog):
        caplog.clear()
        capfd.readouterr()
        self.error, self.result = None, None
        with caplog.at_level(logging.WARNING):
            try:
                self.result = command(workdir)
            except UserError as error:  # anything else would be a traceback, and fails the test
                self.error = " ".join(str(error).split())
        said = [record.getMessage() for record in caplog.records if record.name.startswith("jaxvision")]
        self.said = "\n".join([*said, capfd.readouterr().err])


@pytest.fixture
def tried(made, capfd, caplog):
    def attempt(command, damage, name):
        workdir = made.copy()
        damage(workdir / name)
        return Tried(command, workdir, capfd, caplog), workdir

    return attempt


@pytest.mark.slow
@pytest.mark.parametrize("name", IDENTITY)
def test_what_the_run_is(made, tried, name):
    for turn, damage in enumerate(DAMAGES):
        found, _ = tried(resumed, damage, name)
        assert found.error is not None, damage
        assert name in found.error
        assert "--fork" in found.error
        command = (evaluated, predicted)[turn % 2]
        found, _ = tried(command, damage, name)
        if name == "data.json" or (name == "classes.json" and damage is removed):
            assert found.result == made.right[command], damage
            assert name in found.said
        else:
            assert name in (found.error or ""), damage
    for damage in (halved, made_a_folder) if name == "config.json" else (junk,):
        found, workdir = tried(forked, damage, name)
        assert found.result == made.right[forked], damage
        assert f"{name} " in found.said
        assert (workdir / name).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*INFORMATIVE, "checksums.json"])
def test_what_only_informs(made, tried, name):
    for damage in (junk, made_a_folder, one_digit if name == "checksums.json" else removed):
        found, workdir = tried(resumed, damage, name)
        assert found.result == made.right[resumed], (damage, found.error)
        assert (workdir / "metrics.jsonl").read_bytes() == made.log
        unreadable = damage is junk or (damage is made_a_folder and name != "git.patch") or name == "checksums.json"
        if unreadable and name != "git.patch":
            assert name in found.said, damage
            assert list(workdir.glob(f"{name.split('.')[0]}.damaged*")) or damage is removed
        elif damage is made_a_folder:
            assert (workdir / name).is_dir()


@pytest.mark.slow
def test_the_log(made, tried):
    def first_line(path):
        path.write_bytes(b"{" + path.read_bytes())

    for damage in (*DAMAGES, first_line):
        found, workdir = tried(resumed, damage, "metrics.jsonl")
        assert found.result == made.right[resumed], (damage, found.error)
        assert "metrics.jsonl was changed or damaged" in found.said or "metrics.jsonl is gone" in found.said, damage
        assert (workdir / "metrics.damaged.jsonl").exists() or damage is removed
        later = made.log.splitlines()[6:]
        assert (workdir / "metrics.jsonl").read_bytes().splitlines()[-len(later) :] == later
    assert resumed(workdir) == made.right[resumed]
    assert len(list(workdir.glob("metrics.damaged*"))) == 1  # it is told once
    found, _ = tried(evaluated, junk, "metrics.jsonl")
    assert found.result == made.right[evaluated]
    found, _ = tried(resumed, lambda path: None, "metrics.jsonl")
    assert "metrics.jsonl: 3 rows after step 4 cut, to be written again" in found.said


@pytest.mark.slow
@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_for_comparisons(made, tried, name):
    for damage in DAMAGES:
        found, workdir = tried(resumed, damage, name)
        assert found.result == made.right[resumed], (damage, found.error)
        assert (workdir / name).is_file()
        if name == "parameters.json" and damage is not removed:
            assert "parameters.json" in found.said, damage
        elif name != "parameters.json":
            assert (workdir / name).read_bytes() == (made.run / name).read_bytes(), damage


def files_of(made, step):
    folder = made.run / "checkpoints" / str(step)
    return sorted(str(path.relative_to(made.run)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_the_newest_checkpoint(made, tried):
    for number, name in enumerate(files_of(made, 4)):
        chosen = DAMAGES if name.endswith("_CHECKPOINT_METADATA") else DAMAGES[number % 2 :: 2]
        for turn, damage in enumerate(chosen):
            command = (resumed, evaluated, evaluated)[(number + turn) % 3]
            found, workdir = tried(command, damage, name)
            if command is resumed:
                assert found.result == made.right[resumed], (name, damage, found.error)
                assert (workdir / "metrics.jsonl").read_bytes() == made.log
                assert ("checkpoints/4 is damaged" in found.said) == (workdir / "checkpoints.damaged/4").is_dir()
                if name.endswith("_CHECKPOINT_METADATA") and damage is one_digit:
                    assert "4 is damaged" in found.said
            elif found.error is None:
                assert found.result == made.right[evaluated], (name, damage)
            else:
                assert "checkpoints/4 is damaged" in found.error


@pytest.mark.slow
def test_an_older_checkpoint_ends_nothing(made, tried):
    metadata = "checkpoints/2/_CHECKPOINT_METADATA"
    for name in (metadata, "checkpoints/2/state/_METADATA", "checkpoints/2/state/manifest.ocdbt"):
        found, _ = tried(evaluated, junk, name)
        assert found.result == made.right[evaluated], (name, found.error)
    for damage in DAMAGES:
        found, workdir = tried(best, damage, metadata)
        assert found.result == made.right[best], (damage, found.error)
        assert "checkpoints/2 is damaged, the best of none" in found.said
    found, workdir = tried(forked, one_digit, metadata)
    assert found.result == made.right[forked]
    assert (workdir / "checkpoints.damaged/2").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("how", [shutil.copytree, shutil.move])
def test_a_checkpoint_as_that_of_another_step(made, tried, how):
    found, workdir = tried(resumed, lambda path: how(path / "2", path / "6"), "checkpoints")
    assert found.result == made.right[resumed]
    assert "checkpoints/6 is damaged: it is the one of step 2, copied or renamed" in found.said
    assert (workdir / "metrics.jsonl").read_bytes() == made.log
    found, _ = tried(predicted, lambda path: how(path / "4", path / "5"), "checkpoints")
    assert "checkpoints/5 is damaged" in found.error


@pytest.mark.slow
def test_checkpoints_that_are_gone(made, tried):
    def empty_checkpoint(path):
        (path / "6").mkdir()

    def file_for_a_checkpoint(path):
        (path / "6").write_text("")

    def file_for_the_folder(path):
        shutil.rmtree(path)
        path.write_text("")

    for damage in (shutil.rmtree, lambda path: [shutil.rmtree(each) for each in path.iterdir()], file_for_the_folder):
        for command in (resumed, forked):  # which end before they compile anything
            found, workdir = tried(command, damage, "checkpoints")
            assert "checkpoints has no checkpoint, but this run has saved some, the first at step 2" in found.error
            assert (workdir / "metrics.jsonl").read_bytes() == made.log
        found, _ = tried(predicted, damage, "checkpoints")
        assert "checkpoints" in found.error
    for damage in (empty_checkpoint, file_for_a_checkpoint):
        found, workdir = tried(resumed, damage, "checkpoints")
        assert found.result == made.right[resumed], found.error
        assert (workdir / "metrics.jsonl").read_bytes() == made.log


@pytest.mark.slow
def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(made, tmp_path):
    shutil.copytree(made.run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "checksums.json"))
    experiment, recipe = built()
    (tmp_path / "run/metrics.jsonl").write_bytes(b"".join(made.log.splitlines(keepends=True)[:1]))
    assert run.train(experiment, tmp_path / "run", recipe, report=False).metrics == made.whole.metrics
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == made.log


@pytest.mark.slow
def test_the_commands_tell_it_in_one_line(made, capfd, tmp_path):
    workdir = made.copy()
    one_digit(workdir / "config.json")
    flags = [f"--workdir={workdir}"]
    statuses = [main.main([f"--config={FILE}", *flags]), evaluate.main(flags)]
    image = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(image)
    statuses.append(predict.main([*flags, str(image), f"--output={tmp_path / 'a.csv'}"]))
    assert statuses == [2, 2, 2]
    said = capfd.readouterr().err
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("jaxvision: ")]
    assert len(lines) == 3
    assert all("config.json was changed or damaged since the run began" in line for line in lines)
