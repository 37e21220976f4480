import jax
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from jaxvision import experiment
from jaxvision.commands import split_overrides
from jaxvision.errors import ConfigError
from jaxvision.metrics.detection import detection
from jaxvision.run.config import as_given, as_json, configure, here, load
from jaxvision.types import About, Metric, Stream, Task


def config():
    return ConfigDict(
        {
            "steps": 10,
            "rate": 0.1,
            "name": "a",
            "flag": True,
            "sizes": (1, 2),
            "shares": [0.5],
            "anything": None,
            "model": {"depth": 3, "width": 64},
        }
    )


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("steps", "20", 20),
        ("rate", "2", 2.0),
        ("rate", "1e-3", 1e-3),
        ("name", "12", "12"),
        ("flag", "false", False),
        ("flag", "True", True),
        ("sizes", "(3, 4, 5)", (3, 4, 5)),
        ("sizes", "[3]", (3,)),
        ("rate", "inf", float("inf")),
        ("sizes", "1,2", (1, 2)),
        ("shares", "(1, 2)", [1, 2]),
        ("anything", "{[]: 1}", "{[]: 1}"),
        ("anything", "7", 7),
        ("anything", "text", "text"),
        ("model.depth", "5", 5),
    ],
)
def test_values_are_read_by_the_type_of_the_default(field, text, value):
    found = configure(config(), {field: text})
    for name in field.split("."):
        found = found[name]
    assert found == value
    assert type(found) is type(value)


def test_fields_of_the_command_line_end_at_the_first_equals_sign():
    argv = ["a.png", "--config.name=a=b", "--top=3", "--config.model.depth", "5"]
    assert split_overrides(argv, pytest.fail) == ({"name": "a=b", "model.depth": "5"}, ["a.png", "--top=3"])


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("stepz", "1", r"config has no field 'stepz'; did you mean 'steps'\?"),
        ("model.dept", "1", r"config has no field 'model.dept'; did you mean 'model.depth'\?"),
        ("modle.depth", "1", r"config has no field 'modle.depth'; did you mean 'model.depth'\?"),
        ("zzzzzz", "1", "config has no field 'zzzzzz'; there are: anything, flag, model.depth"),
        ("steps", "ten", r"config.steps is of type int \(default 10\), not 'ten'"),
        ("steps", "1.5", "config.steps is of type int"),
        ("steps", "true", "config.steps is of type int"),
        ("rate", "fast", "config.rate is of type float"),
        ("flag", "1", "config.flag is of type bool"),
        ("sizes", "3", "config.sizes is of type tuple"),
        ("model", "3", "config.model is a section; its fields: depth, width"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(field, text, message):
    with pytest.raises(ConfigError, match=message):
        configure(config(), {field: text})


def test_the_config_is_locked_and_the_original_untouched():
    original = config()
    found = configure(original, {"steps": "3"})
    assert original.steps == 10
    with pytest.raises(AttributeError):
        found.other = 1


def test_loading_names_a_missing_file_and_its_neighbour(tmp_path):
    (tmp_path / "quickstart.py").write_text("")
    with pytest.raises(ConfigError, match=r"no experiment file .*quickstar\.py; did you mean 'quickstart\.py'"):
        load(tmp_path / "quickstar.py")
    (tmp_path / "notes.md").write_text("")
    with pytest.raises(ConfigError, match=r"notes.md is no Python file"):
        load(tmp_path / "notes.md")
    with pytest.raises(ConfigError, match=r"has no function get_config\(\)"):
        load(tmp_path / "quickstart.py")


@pytest.mark.parametrize("content", [b"def f(:", b"\xff", b"a = 1\0"])
def test_an_experiment_or_a_module_of_it_that_is_no_python_is_told(tmp_path, content):
    (tmp_path / "half.py").write_bytes(content)
    (tmp_path / "whole.py").write_text("import broken_module_beside\n")
    with pytest.raises(ConfigError, match=r"half\.py"):
        load(tmp_path / "half.py")
    (tmp_path / "half.py").rename(tmp_path / "broken_module_beside.py")
    with pytest.raises(ConfigError, match=r"broken_module_beside\.py|whole.py, or a module of it: "):
        load(tmp_path / "whole.py")


def test_a_config_that_is_not_data_is_refused():
    with pytest.raises(ConfigError, match="not data"):
        as_json(ConfigDict({"f": lambda: 1}))


@pytest.mark.parametrize("name", ["train", "a/b"])
def test_names_that_no_evaluation_can_have(name):
    chosen = experiment.Experiment(None, None, 1, None, evaluations={"test": None, name: None})
    with pytest.raises(ValueError, match=f"an evaluation is named {name!r}"):
        experiment.check_names(chosen)


@pytest.mark.parametrize(
    ("metric", "data", "told"),
    [
        (("cat", "dog"), ("cat", "dog"), None),
        (("Cat", "Dog"), ("cat", "dog"), None),
        (("cat",), ("cat", "dog"), r"classes cat, the data have cat, dog: 1 and 2"),
        (("dog", "cat"), ("cat", "dog"), r"classes dog, cat, the data have cat, dog: in another order"),
    ],
)
def test_the_classes_of_a_detection_metric_are_those_of_the_data(metric, data, told):
    about = About(3, data, str, "fingerprint")
    experiment.check_classes(Metric(lambda prediction, batch: {}, lambda rows: {}), about)
    if told is None:
        return experiment.check_classes(detection(metric), about)
    with pytest.raises(ValueError, match=f"the metric has the {told}"):
        experiment.check_classes(detection(metric), about)


def test_the_seed_decides_the_first_state_and_its_random_numbers():
    task = Task(lambda key, batch: {"params": jax.random.uniform(key, (3,))}, None, None)

    def first(seed):
        stream = Stream({}, None, None)
        state = experiment.first_state_of(experiment.Experiment(task, optax.identity(), 1, stream, seed=seed))
        return np.asarray(state.params).tolist(), jax.random.key_data(state.key).tolist()

    assert first(3) == first(3)
    assert all(a != b for a, b in zip(first(3), first(4), strict=True))


def test_a_path_below_the_home_folder_is_one_of_this_machine(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    given = ConfigDict({"data": {"train": "~/images"}, "pattern": "~x", "weights": "https://a/b.pth", "steps": 3})
    config = here(given.lock())
    assert (config.data.train, config.pattern, config.weights) == ("/home/me/images", "~x", "https://a/b.pth")
    assert given.data.train == "~/images"
    assert config.is_locked


def test_data_of_an_address_are_refused_by_the_name_of_the_field():
    with pytest.raises(ValueError, match=r"config.data.train: gs://bucket/images is an address"):
        here(ConfigDict({"data": {"train": "gs://bucket/images"}}))


@pytest.mark.parametrize("seed", [-1, 2**63, 10**30])
def test_a_seed_that_no_key_can_be_made_of_is_named(seed):
    chosen = experiment.Experiment(None, None, 1, None, seed=seed)
    with pytest.raises(ValueError, match=f"seed is {seed}; it must be at least 0 and below 2\\*\\*63"):
        experiment.check_seed(chosen)


@pytest.mark.parametrize("steps", [-1, 2**31, 10**30])
def test_steps_that_can_not_be_counted_are_named(steps):
    with pytest.raises(ValueError, match=f"steps is {steps}; it must be at least 0 and below 2\\*\\*31"):
        experiment.check_steps(experiment.Experiment(None, None, steps, None))


def test_a_config_is_written_with_what_build_filled_in_and_paths_as_they_were_given(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    given = ConfigDict({"data": {"train": "~/images", "test": ""}, "classes": (), "steps": 3}).lock()
    filled = here(given)
    with filled.unlocked():
        filled.classes, filled.data.test = ("a", "b"), filled.data.train
    kept = as_given(filled, given)
    assert kept.to_dict() == {
        "data": {"train": "~/images", "test": "/home/me/images"},
        "classes": ("a", "b"),
        "steps": 3,
    }
    assert filled.data.train == "/home/me/images"
