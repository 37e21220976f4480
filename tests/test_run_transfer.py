"""A run that starts from another run's checkpoint."""

import json

import jax
import numpy as np
import pytest
from finished_run import finished_run
from numpy.testing import assert_array_equal
from parity_networks import filled

from jaxvision.experiment import first_state_of
from jaxvision.run import devices, restore, training
from jaxvision.run.transfer import from_run


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return finished_run(tmp_path_factory.getbasetemp() / "finished_run")


def fresh_variables(run):
    """As `Experiment.start` is given them; filled by NumPy."""
    state = jax.eval_shape(lambda: first_state_of(run.experiment, start=False))
    return filled({name: tree for name, tree in state.variables.items() if name != "ema"})


def test_starts_from_the_averaged_weights(workdir, capsys):
    run = restore.restore(workdir)
    fresh = fresh_variables(run)
    saved = restore.load_checkpoint(run, 8, devices.device_mesh()).state
    found = from_run(workdir, 8, new=(".*/bias",))(fresh)
    flat, averaged, first = (dict(jax.tree_util.tree_leaves_with_path(t)) for t in (found, saved.averaged, fresh))
    assert flat.keys() == first.keys()
    for path, leaf in flat.items():
        expected = first if path[-1].key == "bias" else averaged
        assert_array_equal(leaf, np.asarray(expected[path]))
    said = capsys.readouterr().out
    assert "run, step 8: " in said
    assert " new: params/" in said


def test_another_network_is_refused_with_the_report(workdir):
    run = restore.restore(workdir, {"classes": "7"})
    with pytest.raises(ValueError, match=r"run, step \d+: the given arrays do not fit(.|\n)*of another shape: params/"):
        from_run(workdir)(fresh_variables(run))


def test_a_run_notes_the_run_that_it_starts_from(workdir, tmp_path):
    experiment = restore.restore(workdir).experiment
    training.train(experiment._replace(start=from_run(workdir), steps=1), tmp_path / "child", report=False)
    (row,) = map(json.loads, (tmp_path / "child/starts.jsonl").read_text().splitlines())
    assert (row["parent"], row["forked"]) == (str(workdir), [])
