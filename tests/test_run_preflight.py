"""What a preflight finds before any training, and what it says of an experiment that is fine."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from PIL import Image

from jaxvision import main, optimize
from jaxvision.augment.geometry import flip
from jaxvision.data import arrays, folder, order
from jaxvision.errors import ConfigError
from jaxvision.experiment import Evaluation, Experiment, Keep
from jaxvision.metrics.classification import classification as metrics
from jaxvision.run import devices, training
from jaxvision.run.devices import step_on
from jaxvision.run.preflight import check as preflight
from jaxvision.run.preflight import cost
from jaxvision.run.preflight import data as examine
from jaxvision.run.preflight.findings import Finder
from jaxvision.tasks.classification import classification
from jaxvision.train import Every
from jaxvision.types import About, Fault, Metric, Stream

TINY = Path(__file__).with_name("tiny_experiment.py")
CLASSES = ("circle", "cross", "dot")
SIDE = 12


def in_memory(count=30, classes=CLASSES):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, SIDE, SIDE - 2, 3), dtype=np.uint8)
    return arrays.source(images, np.arange(count) % 3, classes)


@pytest.fixture
def experiment(tiny_net):
    """Makes a small experiment; each argument replaces a slot of it, or what its data and network are made of."""

    def make(train=in_memory, test=in_memory, batch_size=8, network=None, skip=False, **slots):
        options = {"canvas": SIDE, "batch_size": batch_size, "on_bad_image": "skip" if skip else "raise"}
        made = Experiment(
            task=classification(network or tiny_net(), mean=100.0, std=50.0),
            optimizer=optax.adam(1e-3),
            steps=1,
            train=arrays.training(train, order=order.shuffled(0), **options),
            augment=flip(),
            evaluations={"test": Evaluation(arrays.evaluation(test, **options), metrics(CLASSES))},
        )
        return made._replace(**slots)

    return make


@pytest.fixture
def images(tmp_path):
    """A folder of three classes of eight PNG files each."""
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(8):
            Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)).save(
                tmp_path / "images" / name / f"{i}.png"
            )
    return tmp_path / "images"


def cut_short(path):
    path.write_bytes(path.read_bytes()[:200])


@pytest.fixture
def checked(tmp_path):
    """Runs the preflight of an experiment in this process."""
    return lambda chosen: preflight.check(chosen, devices.device_mesh(), tmp_path / "preflight")


def test_a_good_experiment_has_a_report_tables_and_pictures(experiment, checked, tmp_path):
    dense = optax.adamw(1e-3, weight_decay=0.01, mask=optimize.kernels)
    group = optimize.by_group({"Dense.*": dense, ".*": optax.adam(5e-4)})
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), group)
    findings = checked(experiment(optimizer=optimizer, frozen=("Conv.*",)))
    assert findings.problems == []
    assert findings.report.endswith("no problem found\n")
    assert (tmp_path / "preflight/report.txt").read_text() == findings.report
    assert "train: 30 examples of 3 classes; all read" in findings.report
    assert re.search(r"circle +10 +10\n", findings.report)
    # A 3x3 convolution from 3 to 8 channels, a norm of 8, a linear layer from 8 to 3; Adam, of each group, has two
    # moments and a count.
    assert "267 parameters, 224 of them frozen" in findings.report
    assert re.search(rf"optimizer state: {4 * (2 * (27 + 16) + 2)} bytes", findings.report)
    table = (tmp_path / "preflight/parameters.txt").read_text()
    assert re.search(r"^Conv_0/kernel +3x3x3x8 +216 +no$", table, re.M)
    assert re.search(r"^Dense_0/kernel +8x3 +24 +Dense\.\* +1 +24$", table, re.M)
    assert re.search(r"^BatchNorm_0/bias +8 +8 +\.\* +0\.5 +0$", table, re.M)
    assert re.search(r"^ +Dense_0 +27 +Dense\.\* +1 +24$", findings.report, re.M)
    for name in ("decoded.png", "augmented.png"):
        with Image.open(tmp_path / "preflight" / name) as picture:
            assert min(picture.size) > 300
    names = {path.name for path in (tmp_path / "preflight").iterdir()}
    assert names == {"report.txt", "parameters.txt", "classes.txt", "decoded.png", "augmented.png"}


def test_all_problems_are_found_at_once(experiment, checked, images, tmp_path):
    cut_short(images / "cross/3.png")
    (images / "dot/5.png").write_bytes(b"")
    findings = checked(
        experiment(
            train=lambda: folder.source(images),
            network=nn.Sequential([Flat(), nn.Dense(5)]),
            frozen=("layer_1/.*",),
            keep=Keep(by="val/accuracy"),
            every=Every(log=0),
        )
    )
    said = "\n".join(findings.problems)
    assert re.search(r"train: .*cross/3.png: can't be decoded", said)
    assert re.search(r"train: .*dot/5.png: the file is empty \(0 bytes\)", said)
    assert "train: the network tells 5 classes apart, but the data have 3 (circle, cross, dot)" in said
    assert "frozen: 'layer_1/.*' matches no parameter; the nearest names are layers_1/" in said
    assert "keep.by is 'val/accuracy'; the evaluations are: test" in said
    assert "log must be at least 1" in said
    assert findings.report.endswith(f"{findings.problems[-1]}\n")
    assert "cross/3.png" in (tmp_path / "preflight/unreadable.txt").read_text()


class Flat(nn.Module):
    @nn.compact
    def __call__(self, x, train=None):
        return x.reshape(x.shape[0], -1)


def test_unreadable_images_that_are_skipped_are_told_but_no_problem(experiment, checked, images):
    cut_short(images / "cross/3.png")
    findings = checked(experiment(train=lambda: folder.source(images), skip=True))
    assert findings.problems == []
    assert "24 examples of 3 classes; all read; 1 unreadable and left out" in findings.report


def doubtful(images):
    """A source with remarks of both kinds."""
    return lambda: folder.source(images)._replace(doubts=("all 9 boxes look like corners",))


def test_files_left_out_are_told_and_doubts_are_problems(experiment, checked, images):
    for stem in ("a", "b"):
        (images / "dot" / f"{stem}.heic").write_bytes(b"")
    findings = checked(experiment(train=doubtful(images), test=doubtful(images)))
    assert findings.problems == ["train: all 9 boxes look like corners"]
    assert f"\n    {images}: left out 2 of 26 files: 2 .heic\n" in findings.report


def test_the_first_lines_of_a_run_say_what_is_left_out_and_what_looks_wrong(experiment, images, tmp_path, capfd):
    (images / "dot/a.heic").write_bytes(b"")
    chosen = experiment(train=doubtful(images), test=doubtful(images), network=nn.Sequential([Flat(), nn.Dense(5)]))
    training.train(chosen._replace(evaluations=of_five(chosen)), tmp_path / "run", report=False)
    first = capfd.readouterr().err.splitlines()
    assert first[:3] == [
        f"train: {images}: left out 1 of 25 files: 1 .heic",
        "train: all 9 boxes look like corners",
        "train: the network tells 5 classes apart, but the data have 3 (circle, cross, dot)",
    ]
    assert "24 examples of 3 classes, evaluation test: 24 examples of 3 classes, batches of" in first[3]
    assert first[4].startswith("compiling the training step")


def of_five(chosen):
    """Its evaluations, with a metric that takes any number of classes."""
    return {"test": chosen.evaluations["test"]._replace(metric=ANY)}


ANY = Metric(lambda prediction, batch: {"index": batch.index, "valid": batch.valid}, lambda rows: {"examples": 1.0})


def test_more_classes_than_the_network_tells_apart_end_a_run_before_it_begins(experiment, images, tmp_path):
    chosen = experiment(network=nn.Sequential([Flat(), nn.Dense(2)]))
    with pytest.raises(ConfigError, match=r"^train: the network tells 2 classes apart, but the data have 3 \(circle, "):
        training.train(chosen._replace(evaluations=of_five(chosen)), tmp_path / "run", report=False)
    assert not (tmp_path / "run").exists()


def test_groups_that_match_nothing_are_a_problem(experiment, checked):
    group = optimize.by_group({"head/.*": optax.adam(1e-3), ".*": optax.sgd(1e-3)})
    [problem] = checked(experiment(optimizer=group)).problems
    assert "by_group: 'head/.*' matches no parameter" in problem


def test_other_classes_and_pretrained_weights_of_another_shape_are_problems(experiment, checked):
    def start(variables):
        head = {"kernel": jnp.zeros((8, 7)), "bias": jnp.zeros(7)}
        return {**variables, "params": {**variables["params"], "Dense_0": head}}

    findings = checked(experiment(start=start, test=lambda: in_memory(classes=("circle", "cross", "ring"))))
    assert findings.problems == [
        "evaluation test: its classes are not those of train: only here: ring; only in train: dot",
        "start: it changes the structure, the shapes or the types of the variables",
    ]


def test_a_step_that_does_not_fit_is_a_problem_and_the_advised_batch_fits(experiment, checked, tmp_path):
    limit = cost.capacity(jax.devices()[0])
    assert limit is not None
    batch_size = int(2 * limit / (SIDE * SIDE * 3 * 4))  # one image in float32 is surely among what the step keeps
    findings = checked(experiment(batch_size=batch_size))
    [problem] = findings.problems
    assert re.search(
        r"memory: the training step needs [\d.]+ [GT]B on each device, .* more than the [\d.]+ [GT]B there", problem
    )
    assert "activations and other temporaries" in problem
    assert not (tmp_path / "preflight/decoded.png").exists()
    advised = int(re.search(r"a batch of about ([\d,]+) would fit", problem)[1].replace(",", ""))
    step, like = step_on(devices.device_mesh(), experiment(batch_size=advised))
    memory = cost.measure(step.lower(like, experiment(batch_size=advised).train.spec)).memory
    assert 0.8 * limit < memory.total < 1.02 * limit


def test_what_no_batch_size_would_fit_says_so():
    memory = cost.Memory(arguments=900, results=10, temporaries=500, code=0)
    with pytest.raises(cost.DoesNotFit, match="610 bytes more than the 800 bytes there are .*; no batch size would"):
        cost.check_fits(memory, 800, state=850, batch_size=8, devices=2)
    cost.check_fits(memory, 1410, state=850, batch_size=8, devices=2)


def test_the_advised_batch_is_that_of_all_devices():
    memory = cost.Memory(arguments=100, results=0, temporaries=100, code=0)  # 10 images on a device take 100 bytes
    with pytest.raises(
        cost.DoesNotFit, match="50 bytes more than the 150 bytes there are .*; a batch of about 20 would fit"
    ):
        cost.check_fits(memory, 150, state=100, batch_size=40, devices=4)


def test_the_operations_of_a_linear_layer_are_those_of_its_two_products(experiment):
    width = 700
    chosen = experiment(network=nn.Sequential([Flat(), nn.Dense(width)]), batch_size=64, augment=None)
    chosen = chosen._replace(optimizer=optax.sgd(0.1))
    step, like = step_on(devices.device_mesh(), chosen)
    flops = cost.measure(step.lower(like, chosen.train.spec)).flops
    # Forward and the gradient of the weights; the images need none. A multiplication and an addition each.
    assert flops / 64 == pytest.approx(2 * 2 * (SIDE * SIDE * 3) * width, rel=0.1)


def test_the_memory_of_arguments_is_that_of_the_state_and_the_batch(experiment):
    chosen = experiment()
    step, like = step_on(devices.device_mesh(), chosen)
    memory = cost.measure(step.lower(like, chosen.train.spec)).memory
    batch = 8 * (SIDE * SIDE * 3 + 4 * (2 + 2 + 1 + 1) + 1)
    state = cost.bytes_on_device(like)
    # Parameters and two moments of 267, statistics of 2 x 8, in float32; step, count, failed and skipped; a key of 8 bytes.
    assert state == 4 * (3 * 267 + 16 + 4) + 8
    assert memory.arguments == pytest.approx(state + batch, rel=0.1)


def test_of_many_examples_the_ends_and_some_between_are_read(experiment, monkeypatch):
    assert (examine.chosen_examples(examine.READ) == np.arange(examine.READ)).all()
    some = examine.chosen_examples(1_000_000)
    assert len(some) == len(set(some)) == examine.READ
    assert (some[:2000] == np.arange(2000)).all()
    assert (some[-2000:] == np.arange(998_000, 1_000_000)).all()
    assert np.histogram(some[2000:-2000], 4)[0].min() > 3500


def stream_with(faults, examples=200):
    about = About(examples, CLASSES, str, "")
    return Stream(
        None, None, lambda: about, None, lambda some: [Fault(f"{i}.png: bad", False) for i in some if faults(i)]
    )


def test_an_image_larger_than_the_canvas_is_a_fault_even_where_unreadable_ones_are_skipped():
    stream = arrays.evaluation(in_memory, canvas=SIDE - 1, batch_size=8, on_bad_image="skip")
    assert stream.faults([3]) == [Fault("arrays[3]: 12x10 is larger than the canvas 11x11 (height x width)", False)]
    broken = in_memory()._replace(labels=lambda: np.full(30, 3))
    with pytest.raises(ValueError, match="labels go from 3 to 3, allowed are 0 to 2"):
        arrays.evaluation(lambda: broken, canvas=SIDE, batch_size=8).about().counts()


def test_many_unreadable_examples_are_counted_and_all_listed(tmp_path):
    found = Finder()
    examine.check_data(found, {"train": stream_with(lambda i: i % 2)}, tmp_path)
    assert found.problems[:2] == ["train: 1.png: bad", "train: 3.png: bad"]
    assert found.problems[-1] == "train: 80 more examples can't be used (all in unreadable.txt)"
    assert len((tmp_path / "unreadable.txt").read_text().splitlines()) == 100


def test_data_that_do_not_open_and_streams_that_break_their_word_are_problems(tmp_path, experiment):
    def missing():
        raise FileNotFoundError("no folder nowhere")

    found = Finder()
    made = experiment()
    liar = made.train._replace(spec=made.train.spec.replace(image=jax.ShapeDtypeStruct((8, 9, 9, 3), np.uint8)))
    streams = {"train": liar, "evaluation test": made.train._replace(about=missing)}
    abouts = examine.check_data(found, streams, tmp_path)
    assert found.problems == ["evaluation test: no folder nowhere"]
    examine.check_batches(found, streams, abouts)
    assert "train: its batches are not what it announces" in found.problems[1]


def test_the_last_batch_of_an_evaluation_is_looked_at_too(experiment):
    stream = experiment().evaluations["test"].stream  # 30 examples in batches of 8: the steps 0 to 3

    def batches(step):
        batch = next(stream.batches(step))
        yield batch.replace(index=batch.index.astype(np.int64)) if step == 3 else batch

    found = Finder()
    examine.check_batches(
        found, {"evaluation test": stream._replace(batches=batches)}, {"evaluation test": stream.about()}
    )
    (problem,) = found.problems
    assert problem.startswith("evaluation test: its batches are not what it announces")


# The command.


@pytest.fixture
def run(tmp_path, capfd):
    """Runs the preflight of the tiny experiment; gives the exit status and what it printed."""

    def command(*options, workdir=tmp_path / "run", **fields):
        fields = [f"--config.{name}={value}" for name, value in fields.items()]
        status = main.main([f"--config={TINY}", f"--workdir={workdir}", "--preflight", *fields, *options])
        printed = capfd.readouterr()
        return status, printed.out + printed.err

    return command


def test_the_command_reports_and_makes_no_run(run, tmp_path):
    status, printed = run()
    assert status == 0, printed
    assert "155 examples of 10 classes; all read" in printed
    assert "no problem found" in printed
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"preflight"}
    assert (tmp_path / "run/preflight/augmented.png").exists()


def test_the_command_names_a_typo_in_the_config(run, tmp_path):
    status, printed = run(learning_rat=1)
    assert status == 2
    assert "config has no field 'learning_rat'; did you mean 'learning_rate'?" in printed
    assert not (tmp_path / "run").exists()


def test_the_command_leaves_a_run_as_it_is_and_ends_with_2_after_a_problem(run, tmp_path, images):
    workdir = tmp_path / "run"
    assert main.main([f"--config={TINY}", f"--workdir={workdir}", "--config.steps=5", "--no-report"]) == 0
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    cut_short(images / "cross/3.png")
    status, printed = run(source="folder", data_dir=images, channels=3, classes=4, test_dir=images)
    assert status == 2, printed
    assert re.search(r"train: .*cross/3.png: can't be decoded", printed)
    assert "the network tells 4 classes apart, but the data have 3 (circle, cross, dot)" in printed
    assert re.search(r"workdir: .*run holds another run: .*config.steps is 5 there and 20 here", printed)
    assert {path: path.read_bytes() for path in before} == before
    assert {path.name for path in workdir.iterdir()} == {path.relative_to(workdir).parts[0] for path in before} | {
        "preflight"
    }
    assert json.loads((workdir / "config.json").read_text())["steps"] == 5


@pytest.mark.slow
def test_a_batch_that_the_devices_cannot_share_is_a_problem(tmp_path):
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    command = [
        sys.executable,
        "-m",
        "jaxvision.main",
        f"--config={TINY}",
        f"--workdir={tmp_path / 'run'}",
        "--preflight",
    ]
    bad = subprocess.run(
        [*command, "--config.batch_size=12"], env=environment, capture_output=True, text=True, check=False
    )
    assert bad.returncode == 2
    assert "a batch of 12 examples can't be split over 8 devices" in bad.stdout + bad.stderr
    good = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert good.returncode == 0, good.stdout + good.stderr
    assert "16 images 28x28x1 on 8 cpu devices" in good.stdout
