import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvision import train
from jaxvision.run import devices, evaluation
from jaxvision.run.log import Clock, JsonLines, Mark
from jaxvision.tasks.classification import classification
from jaxvision.train import interval_mean
from jaxvision.types import Batch, ClassScores, LossOutput, Metric, Task


def linear_task():
    """A weight whose gradient is the mean of the first pixel; a statistic that counts the steps."""

    def init(key, batch):
        return {
            "params": {"w": jnp.ones((), jnp.float32)},
            "batch_stats": {"seen": jnp.zeros(())},
            "fixed": jnp.ones(2),
        }

    def loss(variables, batch, key):
        terms = variables["params"]["w"] * batch.image[:, 0, 0, 0].astype(jnp.float32)
        stats = {"batch_stats": {"seen": variables["batch_stats"]["seen"] + 1}}
        return terms.mean(), LossOutput({"noise": jax.random.uniform(key)}, stats, terms)

    return Task(init, loss, lambda variables, batch: ClassScores(batch.image[:, 0, 0]))


def pixels(*values, dtype=np.float32):
    count = len(values)
    image = np.asarray(values, dtype).reshape(count, 1, 1, 1)
    size = np.ones((count, 2), np.int32)
    return Batch(image, size, size, np.arange(count, dtype=np.int32), np.ones(count, bool))


def state_of(task, optimizer, batch, **options):
    spec = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, batch))
    return train.init_state(task, optimizer, jax.random.key(0), spec, **options)


class Recorder:
    """Hooks that keep what the loop gave them."""

    def __init__(self, evaluate=lambda variables: {}, stop=lambda history: False, interrupt_at=None):
        self.rows, self.saved, self.done = [], [], 0
        self.interrupt_at = interrupt_at
        self.hooks = train.Hooks(self.write, evaluate, self.save, stop, self.interrupted, self.progress)

    def write(self, step, figures):
        self.rows.append({"step": step, **figures})

    def save(self, progress, figures):
        self.saved.append((int(progress.state.step), jax.device_get(progress), figures))

    def interrupted(self, step):
        return self.done == self.interrupt_at

    def progress(self, done, figures):
        self.done = done


def forever(batch):
    while True:
        yield batch


def run(recorder, batches, steps, every, progress=None, nonfinite="stop", average=None):
    task, optimizer = linear_task(), optax.sgd(0.1)
    if progress is None:
        progress = train.Progress(state_of(task, optimizer, pixels(1.0), average=average))
    step = jax.jit(train.make_train_step(task, optimizer, nonfinite=nonfinite, average=average))
    return train.fit(step, progress, batches, steps=steps, every=every, hooks=recorder.hooks, clock=Clock())


@pytest.mark.parametrize(
    ("decay", "decay_of"),
    [
        (0.7, lambda done: min(0.7, (1 + done) / (10 + done))),
        (lambda done: 0.9 - 0.4 ** (done + 1), lambda done: 0.9 - 0.4 ** (done + 1)),
    ],
    ids=["ramped", "function"],
)
def test_ema_equals_the_recursion_in_numpy(decay, decay_of):
    values = np.random.default_rng(0).uniform(-1, 1, 50).astype(np.float32)
    task, optimizer, average = linear_task(), optax.sgd(0.1), train.exponential_average(decay)
    state = state_of(task, optimizer, pixels(1.0), average=average)
    step = jax.jit(train.make_train_step(task, optimizer, average=average))
    w, seen, ema_w, ema_seen = 1.0, 0.0, 1.0, 0.0
    for done, value in enumerate(values):
        state, _ = step(state, pixels(value))
        w, seen = w - 0.1 * float(value), seen + 1
        decay = decay_of(done)
        ema_w, ema_seen = decay * ema_w + (1 - decay) * w, decay * ema_seen + (1 - decay) * seen
    np.testing.assert_allclose(state.averaged["params"]["w"], ema_w, rtol=1e-5)
    np.testing.assert_allclose(state.averaged["batch_stats"]["seen"], ema_seen, rtol=1e-5)
    np.testing.assert_allclose(state.variables["params"]["w"], w, rtol=1e-5)
    assert "fixed" not in state.ema
    assert "fixed" in state.averaged


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_ema_decay_is_checked(decay):
    with pytest.raises(ValueError, match="decay is"):
        train.exponential_average(decay)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_fault_latches_the_state_as_it_was_before(bad):
    task, optimizer = linear_task(), optax.adam(0.1)
    step = jax.jit(train.make_train_step(task, optimizer))
    before, _ = step(state_of(task, optimizer, pixels(1.0)), pixels(2.0))
    after, metrics = step(before, pixels(bad))
    assert int(metrics["failed_step"]) == 1
    after, metrics = step(after, pixels(3.0))
    assert int(metrics["failed_step"]) == 1
    for a, b in zip(
        jax.tree.leaves(after.replace(failed_step=before.failed_step)), jax.tree.leaves(before), strict=True
    ):
        np.testing.assert_array_equal(*map(jax.random.key_data, (a, b)) if a.dtype == before.key.dtype else (a, b))


def test_an_optimizer_state_that_overflows_is_a_fault_but_one_infinite_from_the_start_is_none():
    task = linear_task()
    step = jax.jit(train.make_train_step(task, optax.adam(0.1)))
    _, metrics = step(state_of(task, optax.adam(0.1), pixels(1.0)), pixels(1e20))
    assert int(metrics["failed_step"]) == 0
    plateau = optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau())
    state = state_of(task, plateau, pixels(1.0))
    assert any(np.isinf(x).any() for x in jax.tree.leaves(state.opt_state))
    _, metrics = jax.jit(train.make_train_step(task, plateau))(state, pixels(1.0))
    assert int(metrics["failed_step"]) == -1


def test_a_fault_can_be_skipped_and_counted():
    task, optimizer = linear_task(), optax.sgd(0.1)
    step = jax.jit(train.make_train_step(task, optimizer, nonfinite="skip"))
    state = state_of(task, optimizer, pixels(1.0))
    for value in (1.0, np.nan, 2.0):
        state, metrics = step(state, pixels(value))
    np.testing.assert_allclose(state.params["w"], 1 - 0.1 * (1 + 2), rtol=1e-6)
    assert (int(state.step), int(metrics["skipped"]), int(metrics["failed_step"])) == (3, 1, -1)
    assert int(state.collections["batch_stats"]["seen"]) == 2


def test_every_step_has_random_numbers_of_its_own_and_the_same_again_when_repeated():
    def drawn(key, step, batch):
        return batch.replace(image=jax.random.uniform(key, batch.image.shape))

    task, optimizer = linear_task(), optax.sgd(0.0)  # the weight stays 1: the loss is what the augmentation drew
    step = jax.jit(train.make_train_step(task, optimizer, augment=drawn))
    state, numbers = state_of(task, optimizer, pixels(1.0)), []
    for _ in range(3):
        before = state
        state, metrics = step(before, pixels(1.0))
        numbers += [float(metrics["loss"]), float(metrics["noise"])]
    assert len(set(numbers)) == 6
    _, again = step(before, pixels(1.0))
    assert [float(again["loss"]), float(again["noise"])] == numbers[-2:]


def test_unknown_fault_policy_is_refused():
    with pytest.raises(ValueError, match="'ignore'; allowed: 'stop', 'skip'"):
        train.make_train_step(linear_task(), optax.sgd(0.1), nonfinite="ignore")


def test_the_loop_logs_means_evaluates_and_saves_when_due():
    recorder = Recorder(evaluate=lambda variables: {"test/w": float(variables["params"]["w"])})
    batches = iter([pixels(float(i)) for i in range(10)])
    run(recorder, batches, 10, train.Every(log=2, evaluate=4, checkpoint=3))
    losses, w = [], 1.0
    for i in range(10):
        losses.append(w * i)
        w -= 0.1 * i
    train_rows = [row for row in recorder.rows if "loss" in row]
    assert [row["step"] for row in train_rows] == [2, 4, 6, 8, 10]
    np.testing.assert_allclose([row["loss"] for row in train_rows], np.mean(np.reshape(losses, (5, 2)), 1), rtol=1e-5)
    assert [row["step"] for row in recorder.rows if "test/w" in row] == [4, 8, 10]
    np.testing.assert_allclose(recorder.rows[-1]["test/w"], w, rtol=1e-5)
    assert [step for step, _, _ in recorder.saved] == [3, 4, 6, 8, 9, 10]
    assert [figures is not None for _, _, figures in recorder.saved] == [False, True, False, True, False, True]
    assert [row["step"] for row in recorder.rows] == sorted(row["step"] for row in recorder.rows)


def test_the_averaged_variables_are_what_is_evaluated():
    recorder = Recorder(evaluate=lambda variables: {"test/w": float(variables["params"]["w"])})
    run(recorder, iter([pixels(1.0)] * 2), 2, train.Every(9, 0, 0), average=train.exponential_average(0.9))
    # 1, 0.9 and 0.8 are the weights of the steps, 1 / 10 and 2 / 11 the first decays.
    expected = 2 / 11 * (0.1 * 1 + 0.9 * 0.9) + 9 / 11 * 0.8
    np.testing.assert_allclose(recorder.rows[-1]["test/w"], expected, rtol=1e-6)


def test_the_steps_after_the_last_whole_interval_have_a_row_too():
    recorder = Recorder()
    run(recorder, iter([pixels(float(i)) for i in range(5)]), 5, train.Every(3, 0, 0))
    rows = [row for row in recorder.rows if "loss" in row]
    assert [row["step"] for row in rows] == [3, 5]
    np.testing.assert_allclose(rows[1]["loss"], (0.7 * 3 + 0.4 * 4) / 2, rtol=1e-5)
    assert list(recorder.saved[-1][1].interval) == []


@pytest.mark.parametrize(("steps", "parts", "interval"), [(100, 5, 20), (101, 5, 21), (3, 10, 1)])
def test_even_intervals_divide_the_run(steps, parts, interval):
    assert train.evenly(steps, parts, log=7) == train.Every(7, interval, interval)


def test_intervals_of_a_config_take_the_place_of_the_others_where_they_are_not_0():
    usual = train.Every(log=10, evaluate=50, checkpoint=0)
    assert train.intervals({"log": 0, "evaluate": 0, "checkpoint": 0}, usual) == usual
    assert train.intervals({"log": 2, "evaluate": 0, "checkpoint": 7}, usual) == train.Every(2, 50, 7)


@pytest.mark.parametrize("every", [train.Every(0, 1, 1), train.Every(1, -1, 1), train.Every(1, 1, -1)])
def test_bad_intervals_are_refused(every):
    with pytest.raises(ValueError, match="log must be at least 1, the others at least 0"):
        run(Recorder(), iter([]), 5, every)


def test_an_interrupted_run_goes_on_to_the_same_log():
    values = [float(i) for i in range(10)]
    every = train.Every(log=4, evaluate=5, checkpoint=0)
    evaluation = {"evaluate": lambda variables: {"test/w": float(variables["params"]["w"])}}
    whole = Recorder(**evaluation)
    run(whole, iter([pixels(v) for v in values]), 10, every)
    for at in (1, 3, 4, 5, 7, 9):
        first, second = Recorder(**evaluation, interrupt_at=at), Recorder(**evaluation)
        stopped = run(first, iter([pixels(v) for v in values]), 10, every)
        assert int(stopped.state.step) == at == first.saved[-1][0]
        assert [row["step"] for row in first.rows if "test/w" in row] == [5] * (at > 5)
        end = run(second, iter([pixels(v) for v in values[at:]]), 10, every, progress=first.saved[-1][1])
        assert first.rows + second.rows == whole.rows
        assert list(end.history) == list(whole.saved[-1][1].history)


def test_a_fault_of_the_data_loses_no_row_and_hides_no_nan():
    def batches(values):
        yield from (pixels(v) for v in values)
        raise ValueError("bad image")

    recorder = Recorder()
    with pytest.raises(ValueError, match="bad image"):
        run(recorder, batches([1.0] * 7), 20, train.Every(5, 0, 0))
    assert [row["step"] for row in recorder.rows] == [5]
    with pytest.raises(train.NonFiniteLoss, match="step 2"):
        run(Recorder(), batches([1.0, 1.0, np.nan, 1.0]), 20, train.Every(5, 0, 0))


def test_without_evaluations_there_is_no_empty_row():
    recorder = Recorder(evaluate=lambda variables: {}, stop=lambda history: history[-1]["test/w"] > 0)
    run(recorder, iter([pixels(1.0)] * 4), 4, train.Every(2, 1, 0))
    assert [row["step"] for row in recorder.rows] == [2, 4]
    assert [step for step, _, _ in recorder.saved] == [4]


def test_a_metric_that_appears_midway_is_the_mean_over_its_own_steps():
    assert interval_mean([{"loss": 1.0}, {"loss": 3.0, "new": 5.0}]) == {"loss": 2.0, "new": 5.0}


def test_early_stopping_ends_a_run_and_a_resumed_one_alike():
    def worse(history):
        return len(history) > 1 and history[-1]["test/w"] < history[-2]["test/w"] - 0.15

    evaluation = {"evaluate": lambda variables: {"test/w": float(variables["params"]["w"])}, "stop": worse}
    recorder, values = Recorder(**evaluation), [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 1.0, 1.0]
    end = run(recorder, iter([pixels(v) for v in values]), 8, train.Every(9, 1, 0))
    assert int(end.state.step) == 5
    again = run(Recorder(**evaluation), iter([]), 8, train.Every(9, 1, 0), progress=recorder.saved[-1][1])
    assert int(again.state.step) == 5


def test_a_fault_is_named_one_interval_late_with_the_state_before_it():
    recorder, values = Recorder(), [1.0, 1.0, 1.0, np.nan, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    with pytest.raises(train.NonFiniteLoss, match="step 3: ") as caught:
        run(recorder, iter([pixels(v) for v in values]), 10, train.Every(2, 0, 0))
    np.testing.assert_allclose(caught.value.progress.state.params["w"], 0.7, rtol=1e-6)
    assert [row["step"] for row in recorder.rows] == [2]
    which = train.example_finite(linear_task())
    assert which(caught.value.progress.state, pixels(5.0, np.nan, 1.0)) == [True, False, True]


def test_a_skipped_step_leaves_the_interval_mean_finite():
    recorder, values = Recorder(), [1.0, np.nan, 3.0, 3.0]
    run(recorder, iter([pixels(v) for v in values]), 4, train.Every(2, 0, 0), nonfinite="skip")
    np.testing.assert_allclose(
        [row["loss"] for row in recorder.rows if "loss" in row], [1.0, (0.9 * 3 + 0.6 * 3) / 2], rtol=1e-5
    )
    assert [row["skipped"] for row in recorder.rows if "loss" in row] == [1, 1]
    assert interval_mean([{"loss": np.nan}])["loss"] != interval_mean([{"loss": np.nan}])["loss"]


def test_varying_targets_compile_once(tiny_net, colour_batch):
    task, optimizer = classification(tiny_net()), optax.adam(1e-3)
    traced = []

    def counted(key, step, batch):
        traced.append(1)
        return batch

    step = jax.jit(train.make_train_step(task, optimizer, augment=counted))
    state = state_of(task, optimizer, colour_batch())
    for seed in range(4):
        batch = colour_batch(seed=seed)
        state, _ = step(state, batch.replace(valid=batch.index < 12 - seed))
    assert len(traced) == 1


def test_bfloat16_computes_but_parameters_and_statistics_stay_float32(colour_batch):
    from jaxvision.nn.resnet import resnet18

    task = classification(resnet18(classes=3, width=8, dtype=jnp.bfloat16), dtype=jnp.bfloat16)
    optimizer, batch = optax.sgd(0.1, momentum=0.9), colour_batch(6, side=32)
    spec = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, batch))
    state = jax.eval_shape(lambda: train.init_state(task, optimizer, jax.random.key(0), spec))
    state, metrics = jax.eval_shape(train.make_train_step(task, optimizer), state, spec)
    floats = [x.dtype for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert set(floats) == {jnp.dtype("float32")}
    assert metrics["loss"].dtype == jnp.float32


def test_evaluation_of_1997_examples_in_batches_of_64_equals_numpy():
    rng = np.random.default_rng(0)
    logits, label = rng.normal(size=(1997, 5)).astype(np.float32), rng.integers(0, 5, 1997)

    def batches():
        for start in range(0, 1997, 64):
            index = np.arange(start, start + 64)
            valid = index < 1997
            index = np.where(valid, index, 0)
            image = np.where(valid[:, None], logits[index], 7.0)[:, None, None, :].astype(np.float32)
            size = np.ones((64, 2), np.int32)
            yield Batch(image, size, size, index.astype(np.int32), valid, label[index])

    metric = Metric(
        observe=lambda scores, batch: {"hit": scores.logits.argmax(-1) == batch.target, "top": scores.logits.max(-1)},
        compute=lambda rows: {"accuracy": rows["hit"].mean(), "mean_top": rows["top"].mean(dtype=np.float64)},
    )
    observe = evaluation.make_observe(linear_task().predict, metric)
    result = evaluation.measure(observe, {}, batches(), metric)
    assert result.metrics["accuracy"] == (logits.argmax(1) == label).mean()
    assert result.metrics["mean_top"] == logits.max(1).mean(dtype=np.float64)
    np.testing.assert_array_equal(result.rows["index"], np.arange(1997))


def test_evaluation_hides_the_target_from_predict():
    seen = []
    metric = Metric(lambda scores, batch: {"target": batch.target}, lambda rows: {})
    observe = evaluation.make_observe(lambda variables, batch: seen.append(batch.target), metric)
    evaluation.measure(observe, {}, [pixels(1.0).replace(target=np.zeros(1))], metric)
    assert seen == [None]


def test_evaluation_without_examples_is_an_error():
    with pytest.raises(ValueError, match="no valid example"):
        evaluation.measure(lambda variables, batch: {}, {}, [], Metric(lambda scores, batch: {}, lambda rows: {}))


def test_jsonl_is_cut_back_and_survives_a_half_written_line(tmp_path):
    lines = JsonLines(tmp_path / "metrics.jsonl")
    assert lines.go_on_from(Mark()) == []
    for step in (1, 2, 3):
        lines.write(step, {"loss": 1 / step, "bad": float("nan")})
    mark, before = lines.mark(3), lines.path.read_bytes()
    assert mark == Mark(3, 3, hashlib.sha256(before).hexdigest())
    lines.write(3, {"test/loss": 0.0})
    with lines.path.open("a") as file:
        file.write('{"step": 5, "lo')
    again = JsonLines(lines.path)
    assert again.go_on_from(mark) == ["metrics.jsonl: 1 row after step 3 cut, to be written again"]
    assert lines.path.read_bytes() == before
    assert again.mark(3) == mark
    assert again.go_on_from(mark) == []
    assert json.loads(before.splitlines()[2]) == {"step": 3, "loss": 1 / 3, "bad": None}
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


FOUR = [b'{"step": 1, "x": 0.5}\n', b'{"step": 2, "x": 0.25}\n', b'{"step": 3, "x": null}\n', b'{"step": 4, "x": 1}\n']


@pytest.mark.parametrize(
    ("content", "stay"),
    [
        ([], 0),
        ([b"{}\n", *FOUR[1:]], 2),
        ([b"\xff\xfe\n", *FOUR[1:]], 2),
        ([FOUR[0].replace(b"5", b"4"), *FOUR[1:]], 3),
        ([FOUR[0], FOUR[2], FOUR[3]], 2),
        ([b'{"step": 1, "x": "text"}\n', *FOUR[1:]], 2),
        ([b"[" * 100_000 + b"\n", *FOUR[1:]], 2),
        ([b"5\n"] * 3, 0),
    ],
)
def test_a_log_that_is_not_what_it_was_is_kept_aside_and_what_can_be_read_of_it_stays(tmp_path, content, stay):
    lines, mark = JsonLines(tmp_path / "metrics.jsonl"), Mark(3, 3, hashlib.sha256(b"".join(FOUR[:3])).hexdigest())
    lines.path.write_bytes(b"".join(content))
    (said,) = lines.go_on_from(mark)
    assert "metrics.jsonl was changed or damaged since it was written; kept as metrics.damaged.jsonl" in said
    assert said.endswith(f"; of its 3 rows up to step 3, {stay} stay")
    assert (tmp_path / "metrics.damaged.jsonl").read_bytes() == b"".join(content)
    rows = [json.loads(line) for line in lines.path.read_bytes().splitlines()]
    assert rows == lines.read()
    assert len(rows) == stay
    assert lines.mark(3).rows == stay
    assert JsonLines(lines.path).go_on_from(lines.mark(3)) == []


def test_a_log_that_is_gone_or_a_folder_is_told(tmp_path):
    lines = JsonLines(tmp_path / "metrics.jsonl")
    assert "metrics.jsonl is gone; of its 3 rows up to step 3, 0 stay" in lines.go_on_from(Mark(3, 3))[0]
    lines.path.mkdir()
    assert "kept as metrics.damaged.jsonl" in lines.go_on_from(Mark(3, 3))[0]
    lines.write(4, {"x": 1.0})
    assert lines.read() == [{"step": 4, "x": 1.0}]


def test_precision_is_resolved_by_backend():
    assert [devices.precision("auto", backend) for backend in ("cpu", "gpu", "tpu")] == [
        "float32",
        "bfloat16",
        "bfloat16",
    ]
    assert devices.precision("float32", "gpu") == "float32"
    with pytest.raises(ValueError, match="'fp16'; allowed: auto, float32, bfloat16, float64"):
        devices.precision("fp16")


def test_a_batch_that_the_devices_can_not_share_is_named():
    mesh = jax.sharding.AbstractMesh((2,), ("data",))
    devices.check_divisible(pixels(1.0, 2.0), mesh)
    with pytest.raises(ValueError, match="a batch of 3 examples can't be split over 2 devices"):
        devices.check_divisible(pixels(1.0, 2.0, 3.0), mesh)


@pytest.mark.parametrize(("seconds", "most"), [(0.0, 2 * train.STEPS_AHEAD), (1.0, train.STEPS_AHEAD + 1)])
def test_the_host_is_a_few_steps_ahead_and_waits_for_older_ones_alone(monkeypatch, seconds, most):
    task, optimizer, recorder = linear_task(), optax.sgd(0.1), Recorder()
    step, wait = jax.jit(train.make_train_step(task, optimizer)), jax.block_until_ready
    given, ahead, done = [], [], 0

    def counted(state, batch):
        state, metrics = step(state, batch)
        given.append(metrics)
        ahead.append(len(given) - done)
        return state, metrics

    def waited(metrics):
        nonlocal done
        done = 1 + next(number for number, each in enumerate(given) if each is metrics)
        assert done < len(given)
        return wait(metrics)

    monkeypatch.setattr(jax, "block_until_ready", waited)
    monkeypatch.setattr(train.time, "perf_counter", lambda: seconds * len(given))
    progress, every = train.Progress(state_of(task, optimizer, pixels(1.0))), train.Every(5, 0, 0)
    train.fit(counted, progress, forever(pixels(1.0)), steps=40, every=every, hooks=recorder.hooks, clock=Clock())
    assert max(ahead) == most
    assert [row["step"] for row in recorder.rows] == [*range(5, 41, 5)]


def test_batches_are_placed_ahead_in_order_and_none_is_lost():
    found = [
        int(b.image[0, 0, 0, 0]) for b in devices.ahead((pixels(float(i)) for i in range(7)), lambda b: b, depth=3)
    ]
    assert found == list(range(7))
    assert list(devices.ahead(iter([]), lambda b: b)) == []
