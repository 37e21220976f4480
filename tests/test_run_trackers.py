"""Trackers: what TensorBoard and Weights & Biases read back of a run, and that a failing tracker ends nothing."""

import io
import json
import struct
import sys
import types

import numpy as np
import pytest
from PIL import Image

from jaxvision.errors import TrackerError
from jaxvision.run.log import Clock
from jaxvision.run.trackers import Speed, TensorBoard, Trackers, WeightsAndBiases, flat

# TensorBoard reads event files by TensorFlow if that is installed, which takes long to import, unless this module exists.
sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("tensorboard.compat.notf"))

CONFIG = {"seed": 0, "learning_rate": 3e-3, "network": {"channels": [4, 8], "name": "cnn"}, "flip": True, "best": None}


@pytest.fixture
def report(tmp_path):
    """A folder with two pictures, which are noise."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, shape in (("curves", (20, 30, 3)), ("test_confusion", (8, 9, 4))):
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def row(step):
    return {"loss": 1 / step, "gradient_norm": 2.0 * step}


def evaluation(step):
    return {"test/accuracy": step / 100, "test/recall/7": 0.5}


def trained(folder, steps, rows=(), config=CONFIG):
    """A tracker that was shown rows and evaluations at these steps; it is open."""
    tracker = TensorBoard(folder, config, rows)
    for step in steps:
        tracker.metrics(step, row(step))
        tracker.metrics(step, evaluation(step))
    return tracker


def kept(steps):
    """The rows of metrics.jsonl of these steps."""
    return [{"step": step, **figures} for step in steps for figures in (row(step), evaluation(step))]


def read_back(folder):
    from tensorboard.backend.event_processing import event_accumulator

    return event_accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


def scalars(folder, tag):
    return [(event.step, event.value) for event in read_back(folder).Scalars(tag)]


def test_tensorboard_reads_every_figure(tmp_path):
    trained(tmp_path, [5, 10]).close()
    tags = set(read_back(tmp_path).Tags()["scalars"])
    assert tags == {"train/loss", "train/gradient_norm", "test/accuracy", "test/recall/7"}
    assert scalars(tmp_path, "train/loss") == [(5, pytest.approx(1 / 5)), (10, pytest.approx(1 / 10))]
    assert scalars(tmp_path, "test/accuracy") == [(5, pytest.approx(0.05)), (10, pytest.approx(0.1))]


def test_a_resumed_run_shows_each_step_once_however_often_it_was_resumed(tmp_path):
    killed = trained(tmp_path, [5, 10, 15])  # not closed yet, and all is there
    assert [step for step, _ in scalars(tmp_path, "train/loss")] == [5, 10, 15]
    trained(tmp_path, [10, 15, 20], rows=kept([5])).close()
    trained(tmp_path, [20, 25], rows=kept([5, 10, 15])).close()
    killed.close()
    for tag in ("train/loss", "train/gradient_norm", "test/accuracy"):
        assert [step for step, _ in scalars(tmp_path, tag)] == [5, 10, 15, 20, 25]


def test_a_run_that_begins_again_hides_all_of_the_one_before(tmp_path):
    trained(tmp_path, [5, 10, 15]).close()
    trained(tmp_path, [6]).close()
    assert [step for step, _ in scalars(tmp_path, "train/loss")] == [6]


def test_more_starts_than_digits_sort_by_name_are_read_in_order(tmp_path):
    steps = list(range(1, 13))
    for step in steps:
        trained(tmp_path, [step, step + 1], rows=kept(range(1, step))).close()
    assert [step for step, _ in scalars(tmp_path, "train/loss")] == [*steps, 13]


def test_the_pictures_are_the_files_themselves_once(tmp_path, report):
    tracker = trained(tmp_path / "tracker", [5, 10])
    tracker.pictures(report)
    tracker.close()
    again = TensorBoard(tmp_path / "tracker", CONFIG, kept([5, 10]))  # the finished run is started once more
    again.pictures(report)
    again.close()
    seen = read_back(tmp_path / "tracker" / "report")
    assert set(seen.Tags()["images"]) == {"curves", "test_confusion"}
    for name in seen.Tags()["images"]:
        (event,) = seen.Images(name)
        assert event.step == 10
        with Image.open(io.BytesIO(event.encoded_image_string)) as image, Image.open(report / f"{name}.png") as file:
            assert (event.width, event.height) == image.size
            np.testing.assert_array_equal(np.asarray(image), np.asarray(file))


def hparams_tab(logdir):
    """What the HParams tab shows: run name to its hyper-parameters, its metrics, and its status."""
    from tensorboard import context
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment, list_session_groups

    multiplexer = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(logdir))
    backend = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    no_context = context.RequestContext()
    asked = api_pb2.GetExperimentRequest(experiment_name="", include_metrics=True)
    experiment = get_experiment.Handler(no_context, backend, "", asked).run()
    columns = [{"hparam": info.name} for info in experiment.hparam_infos]
    columns += [{"metric": info.name} for info in experiment.metric_infos]
    asked = api_pb2.ListSessionGroupsRequest(
        col_params=columns,
        start_index=0,
        slice_size=9,
        allowed_statuses=api_pb2.Status.values(),
        include_metrics=True,
    )
    groups = list_session_groups.Handler(no_context, backend, "", asked).run().session_groups
    return {
        group.sessions[0].name: (
            {name: getattr(value, value.WhichOneof("kind")) for name, value in group.hparams.items()},
            {each.name.tag: each.value for each in group.metric_values},
            api_pb2.Status.Name(group.sessions[0].status),
        )
        for group in groups
    }


def test_the_hparams_tab_has_the_config_of_every_run_beside_its_last_figures(tmp_path, report):
    done = trained(tmp_path / "a" / "tensorboard", [5, 10])
    done.pictures(report)
    done.close()
    trained(tmp_path / "b" / "tensorboard", [5], config={**CONFIG, "learning_rate": 0.1}).close()
    tab = hparams_tab(tmp_path)
    assert set(tab) == {"a/tensorboard", "b/tensorboard"}
    fields, figures, status = tab["a/tensorboard"]
    expected = {"seed": 0, "learning_rate": 3e-3, "network.channels": "[4, 8]", "network.name": "cnn", "flip": True}
    assert fields == {**expected, "best": "null"}
    assert figures == {"test/accuracy": pytest.approx(0.1)}
    assert status == "STATUS_SUCCESS"
    fields, figures, status = tab["b/tensorboard"]
    assert fields["learning_rate"] == 0.1
    assert figures == {"test/accuracy": pytest.approx(0.05)}
    assert status == "STATUS_UNKNOWN"


def test_a_fork_shows_the_config_that_it_goes_on_with(tmp_path):
    trained(tmp_path, [5]).close()
    trained(tmp_path, [10], rows=kept([5]), config={**CONFIG, "seed": 7}).close()
    ((fields, _, _),) = hparams_tab(tmp_path).values()
    assert fields["seed"] == 7


def test_the_fields_of_a_config_are_numbers_texts_and_truth_values():
    assert flat({"a": {"b": {"c": 1}, "d": (1, 2)}, "e": "x", "f": None, "g": False}) == {
        "a.b.c": 1,
        "a.d": "[1, 2]",
        "e": "x",
        "f": "null",
        "g": False,
    }


def test_a_board_that_fails_is_told_of_once_and_left_out(tmp_path, report, caplog):
    broken, whole = TensorBoard(tmp_path / "broken", CONFIG, ()), TensorBoard(tmp_path / "whole", CONFIG, ())
    trackers = Trackers([broken, whole])
    trackers.metrics(1, row(1))
    broken._file.close()  # as a full disk would, it fails from here on
    for step in (2, 3):
        trackers.metrics(step, row(step))
    trackers.pictures(report)
    trackers.close()
    assert [step for step, _ in scalars(tmp_path / "whole", "train/loss")] == [1, 2, 3]
    assert [step for step, _ in scalars(tmp_path / "broken", "train/loss")] == [1]
    (record,) = caplog.records
    assert record.getMessage().startswith("TensorBoard fails: ")
    assert "goes on without it" in record.getMessage()


def test_speed_leaves_out_evaluations_and_the_first_step():
    clock, written = Clock(), []
    speed = Speed(clock, 8, 2, lambda step, figures: written.append((step, figures)))
    spent = {11: 60.0, 12: 0.5, 13: 0.5, 14: 1.5, 15: 0.5, 16: 0.5}
    for step, seconds in spent.items():
        clock.seconds["step"] = clock.seconds.get("step", 0.0) + seconds * 0.8
        clock.seconds["data"] = clock.seconds.get("data", 0.0) + seconds * 0.2
        clock.seconds["evaluation"] = 100.0 * step
        speed.step(step)
    assert [step for step, _ in written] == [12, 14, 16]
    assert [each["speed/seconds_per_step"] for _, each in written] == pytest.approx([0.5, 1.0, 0.5])
    assert [each["speed/images_per_second"] for _, each in written] == pytest.approx([16, 8, 16])


def test_without_wandb_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(TrackerError, match=r"--wandb needs the package wandb: pip install 'jaxvision\[wandb\]'"):
        WeightsAndBiases("project", tmp_path, CONFIG, ())
    assert not list(tmp_path.iterdir())


def wandb_records(path):
    """The records of a .wandb file, which is a LevelDB log: chunks of at most a block, put together to records."""
    from wandb.proto import wandb_internal_pb2

    content, position, whole, block = path.read_bytes(), 7, b"", 1 << 15
    while position + 7 <= len(content):
        left = block - position % block
        _, length, kind = struct.unpack_from("<IHB", content, position)
        if left < 7 or kind == 0:
            position += left
            continue
        whole += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last chunk of one
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


def wandb_history(path):
    """Each row that was sent: its figures, with the step as `_step`."""
    for record in wandb_records(path):
        if record.WhichOneof("record_type") == "history":
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            yield {name: json.loads(value) for name, value in items.items()}


@pytest.fixture
def offline(monkeypatch, tmp_path):
    pytest.importorskip("wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    for name in ("CONFIG", "CACHE", "DATA", "ARTIFACT"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "home"))
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_wandb_gets_each_row_once_and_a_resumed_run_goes_on_in_the_same_one(offline, report):
    tracker = WeightsAndBiases("project", offline, CONFIG, ())
    for step in (5, 10, 15):
        tracker.metrics(step, row(step))
        tracker.metrics(step, evaluation(step))
    tracker.close()
    (first,) = offline.glob("wandb/offline-run-*/run-*.wandb")
    tracker = WeightsAndBiases("project", offline, CONFIG, kept([5, 10]))
    for step in (15, 20):
        tracker.metrics(step, row(step))
    tracker.pictures(report)
    tracker.close()
    (second,) = set(offline.glob("wandb/offline-run-*/run-*.wandb")) - {first}
    assert first.name == second.name == f"run-{(offline / 'wandb.txt').read_text().split()[0]}.wandb"
    rows = list(wandb_history(first))
    assert [each["_step"] for each in rows] == [5, 10, 15]
    assert rows[1]["train/loss"] == pytest.approx(0.1)
    assert rows[1]["test/accuracy"] == pytest.approx(0.1)
    (last,) = wandb_history(second)
    assert last["_step"] == 20
    assert last["train/loss"] == pytest.approx(0.05)
    assert len(list(second.parent.glob("files/media/images/report/*.png"))) == 2


def test_wandb_gets_the_rows_from_before_it_was_asked_for(offline):
    rows = [{"step": 5, "loss": None, "gradient_norm": 1.0}, *kept([10])]
    tracker = WeightsAndBiases("project", offline, CONFIG, rows)
    tracker.close()
    (file,) = offline.glob("wandb/offline-run-*/run-*.wandb")
    sent = list(wandb_history(file))
    assert [each["_step"] for each in sent] == [5, 10]
    assert "train/loss" not in sent[0]
    config = next(r.run.config for r in wandb_records(file) if r.WhichOneof("record_type") == "run")
    assert {"seed", "learning_rate"} <= {update.key for update in config.update}


def test_names_of_files_that_are_no_utf_8_are_shown_escaped(tmp_path):
    tracker = trained(tmp_path, [], config={"train_dir": "images \udcff"})
    tracker.metrics(1, {"test/recall/cat \udcff": 0.5})
    tracker.close()
    assert scalars(tmp_path, "test/recall/cat \\udcff") == [(1, 0.5)]
    assert flat({"train_dir": "images \udcff"}) == {"train_dir": "images \\udcff"}
