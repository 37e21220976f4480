"""The state of a run, the one training step, and the one loop."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.core import Tracer
from jaxtyping import Array, PyTree

from jaxvision.errors import UserError
from jaxvision.gradient import Gradient, mean_gradient
from jaxvision.machine.signals import Stopped
from jaxvision.types import Augment, Batch, Key, Params, Scalar, Task, Variables

TrainStep = Callable[["TrainState", Batch], tuple["TrainState", dict[str, Scalar]]]
Metrics = Mapping[str, float]
NonFinite = Literal["stop", "skip"]
Weights = Literal["averaged", "current"]
"""The average of variables over the steps, or those of one step."""
Clock = Callable[[str], AbstractContextManager[None]]
"""Counts the time of a `with` block to the part of this name."""
STEPS_AHEAD, LONG = 4, 0.05
"""How many steps the host may have given to the device that are not done yet, and the seconds between two waits from which on
it waits at each step. Of shorter steps it lets as many more begin, then waits for them together: each wait wakes it up
while the device computes, which takes 5 % of a step of 3 ms on two cores."""


class TrainState(struct.PyTreeNode):
    """All that a run is: arrays only, so that a checkpoint of it is the run."""

    step: Scalar
    """Steps done; the next batch is the one of this number."""
    params: Params
    collections: dict[str, Any]
    """What the network keeps beside parameters: BatchNorm statistics, a fixed teacher."""
    opt_state: PyTree
    key: Key
    """Never changes: each step folds its number into it."""
    ema: Any = None
    """The averaged variables, or None."""
    failed_step: Scalar = struct.field(default_factory=lambda: jnp.int32(-1))
    """The first step whose result was not finite, -1 for none."""
    skipped: Scalar = struct.field(default_factory=lambda: jnp.int32(0))
    """How many steps were skipped because their result was not finite."""

    @property
    def variables(self) -> Variables:
        """What a loss sees."""
        return {**self.collections, "params": self.params, "ema": self.ema}

    @property
    def current(self) -> Variables:
        """The variables without the averaged ones."""
        return {**self.collections, "params": self.params}

    @property
    def averaged(self) -> Variables:
        """What to evaluate: the averaged variables where there are some, the current ones otherwise."""
        return {**self.current, **(self.ema or {})}


class Average(NamedTuple):
    """A running average of variables, kept beside them."""

    init: Callable[[Variables], PyTree]
    update: Callable[[PyTree, Variables, Scalar], PyTree]
    """`(average, variables, step) -> average`; `step` counts those done before this one."""


def exponential_average(
    decay: float | Callable[[Scalar], Scalar],
    collections: tuple[str, ...] = ("batch_stats",),
) -> Average:
    """`ema = decay * ema + (1 - decay) * variables`, of the parameters and of these collections.

    BatchNorm statistics are averaged like the parameters that they belong to.

    Args:
      decay: a number, which is reached by `ramped`, or the decay of each step as a function of the steps done before it.
      collections: what is averaged beside the parameters.

    Raises:
      ValueError: if the number is not in [0, 1).
    """
    decay_of = decay if callable(decay) else ramped(decay)

    def averaged_part(variables: Variables) -> dict:
        return {name: value for name, value in variables.items() if name in ("params", *collections)}

    def init(variables: Variables) -> PyTree:
        return jax.tree.map(jnp.array, averaged_part(variables))

    def update(ema: PyTree, variables: Variables, step: Scalar) -> PyTree:
        rate = 1 - decay_of(step)
        mixed = lambda new, old: optax.incremental_update(new, old, jnp.asarray(rate, new.dtype))
        return jax.tree.map(mixed, averaged_part(variables), ema)

    return Average(init, update)


def ramped(decay: float) -> Callable[[Scalar], Scalar]:
    """`min(decay, (1 + step) / (10 + step))`, so that an average soon forgets the weights that a run began with.

    What `tf.train.ExponentialMovingAverage` does with `num_updates`, and so the recipes of EfficientNet and Inception. The
    average of a short run spans about its last ninth.

    Raises:
      ValueError: if `decay` is not in [0, 1).
    """
    if not 0 <= decay < 1:
        raise ValueError(f"ramped: decay is {decay}; it must be at least 0 and less than 1")
    return lambda step: jnp.minimum(decay, (1 + step) / (10 + step))


def init_state(
    task: Task,
    optimizer: optax.GradientTransformation,
    key: Key,
    spec: Batch,
    *,
    start: Callable[[Variables], Variables] | None = None,
    average: Average | None = None,
    layout: Callable[[PyTree], PyTree] = lambda shapes: None,
) -> TrainState:
    """The state before the first step.

    Args:
      task: whose parameters to make.
      optimizer: whose state to make.
      key: the source of all randomness of the run.
      spec: a batch of `jax.ShapeDtypeStruct`.
      start: changes the fresh variables: pretrained weights. Runs on the host, outside `jit`.
      average: keeps averaged variables.
      layout: gives the sharding of each array from the tree of their shapes; the arrays are made where they belong.
    """
    init_key, train_key = jax.random.split(key)

    def init(key: Key) -> Variables:
        return task.init(key, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), spec))

    def assemble(variables: Variables, key: Key) -> TrainState:
        collections = {name: value for name, value in variables.items() if name != "params"}
        params = variables["params"]
        ema = average.init(variables) if average else None
        return TrainState(jnp.int32(0), params, collections, optimizer.init(params), key, ema)

    def placed(make: Callable, *inputs: PyTree) -> PyTree:
        shardings = layout(jax.eval_shape(make, *inputs))
        options = None if isinstance(key, Tracer) else _for_one_call()
        return jax.jit(make, out_shardings=shardings, compiler_options=options)(*inputs)

    variables = placed(init, init_key)
    if start is not None:
        variables = start(variables)
    return placed(assemble, variables, train_key)


def _for_one_call() -> dict[str, int] | None:
    """Options of a program that is run once, and so had better compile soon than run fast; None: those of all programs.

    On CPU a third of the time that the quickstart's initialisation takes is left. The numbers are the same with JAX 0.10, and
    the same but for rounding with 0.8.
    """
    return {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None


def make_train_step(
    task: Task,
    optimizer: optax.GradientTransformation,
    *,
    augment: Augment | None = None,
    gradient: Gradient = mean_gradient,
    average: Average | None = None,
    nonfinite: NonFinite = "stop",
) -> TrainStep:
    """The one training step, a pure function `(state, batch) -> (state, metrics)`; the caller jits it.

    A step whose loss or gradient is not finite, or that makes a number of the state so, leaves all of it as it was. With
    `"stop"` it also latches its number in `failed_step` and every later step does nothing, so that the host, which looks
    later, finds the state as it was before that step; with `"skip"` the run goes on with the next batch and `skipped`
    counts.
    """
    if nonfinite not in ("stop", "skip"):
        raise ValueError(f"nonfinite is {nonfinite!r}; allowed: 'stop', 'skip'")
    value_and_grad = gradient(task.loss)
    update = optax.with_extra_args_support(optimizer).update
    guard = _stop_at_nonfinite if nonfinite == "stop" else _skip_nonfinite

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Scalar]]:
        augment_key, loss_key = step_keys(state)
        if augment is not None:
            batch = augment(augment_key, state.step, batch)
        (loss, out), grads = value_and_grad(state.variables, batch, loss_key)
        updates, opt_state = update(grads, state.opt_state, state.params, value=loss)
        params = optax.apply_updates(state.params, updates)
        collections = {**state.collections, **out.collections}
        ema = average.update(state.ema, {**collections, "params": params}, state.step) if average else state.ema
        new = state.replace(step=state.step + 1, params=params, collections=collections, opt_state=opt_state, ema=ema)
        state = guard(state, new, finite((loss, grads)) & ~broken(state, new))
        metrics = {"loss": loss, **out.metrics, "gradient_norm": optax.tree.norm(grads)}
        return state, {**metrics, "failed_step": state.failed_step, "skipped": state.skipped}

    return train_step


def _stop_at_nonfinite(old: TrainState, new: TrainState, ok: Scalar) -> TrainState:
    running = old.failed_step < 0
    state = _select(running & ok, new, old)
    return state.replace(failed_step=jnp.where(running & ~ok, old.step, old.failed_step))


def _skip_nonfinite(old: TrainState, new: TrainState, ok: Scalar) -> TrainState:
    return _select(ok, new, old).replace(step=new.step, skipped=old.skipped + (~ok).astype(jnp.int32))


def _select(condition: Scalar, new: TrainState, old: TrainState) -> TrainState:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def example_finite(task: Task, augment: Augment | None = None) -> Callable[[TrainState, Batch], list[bool]]:
    """The function that tells of each example whether its loss and gradient, alone, are finite.

    It sees the examples as the step does that `state` is about to do: augmented, with the same keys.
    """
    prepare = jax.jit(augment or (lambda key, step, batch: batch))
    value_and_grad = mean_gradient(task.loss)
    alone = jax.jit(lambda variables, batch, key: finite(value_and_grad(variables, batch, key)))

    def which(state: TrainState, batch: Batch) -> list[bool]:
        augment_key, loss_key = step_keys(state)
        batch = prepare(augment_key, state.step, batch)
        ones = (jax.tree.map(lambda x: x[i : i + 1], batch) for i in range(batch.image.shape[0]))  # noqa: B023
        return [bool(alone(state.variables, one, loss_key)) for one in ones]

    return which


def step_keys(state: TrainState) -> Array:
    """The keys of augmentation and of the loss in the step that `state` is about to do."""
    return jax.random.split(jax.random.fold_in(state.key, state.step))


def finite(tree: PyTree) -> Scalar:
    """Whether every floating-point number of the tree is finite."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return _all([jnp.isfinite(x).all() for x in leaves])


def broken(old: PyTree, new: PyTree) -> Scalar:
    """Whether any floating-point number was finite in `old` and is not in `new`.

    (Some optimizer states are infinite from the start: the best loss so far, say.)
    """
    pairs = zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True)
    floating = [(a, b) for a, b in pairs if jnp.issubdtype(b.dtype, jnp.floating)]
    return ~_all([(jnp.isfinite(b) | ~jnp.isfinite(a)).all() for a, b in floating])


def _all(flags: list[Scalar]) -> Scalar:
    """Whether all are true: the first when sorted.

    XLA on CPU would repeat a plain conjunction of the n flags in each of the n updates that depend on it, and take time
    in proportion to n squared to compile them; it doesn't repeat a sort.
    """
    return jax.lax.sort(jnp.stack(flags))[0]


LATCHES = ("failed_step", "skipped")
"""Metrics of which a row of the log keeps the last value, and only where it says something."""


def interval_mean(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric over the steps of an interval; steps where it is not finite are left out."""
    row = {}
    for name in metrics[-1]:
        if name in LATCHES:
            continue
        values = [step[name] for step in metrics if math.isfinite(step.get(name, math.nan))]
        row[name] = math.fsum(values) / len(values) if values else math.nan
    if metrics[-1].get("skipped"):
        row["skipped"] = metrics[-1]["skipped"]
    return row


class Every(NamedTuple):
    """How often, in steps, the loop does what it does beside training; it does all of it at the end, too.

    `evaluate` and `checkpoint` may be 0: only at the end. An evaluation is always followed by a checkpoint, so that the
    best one exists.
    """

    log: int = 100
    evaluate: int = 1000
    checkpoint: int = 1000


def check_intervals(every: Every) -> None:
    """Raises ValueError for intervals that are not allowed."""
    if every.log < 1 or every.evaluate < 0 or every.checkpoint < 0:
        raise ValueError(f"{every}: log must be at least 1, the others at least 0")


class Progress(NamedTuple):
    """A run on its way: what a checkpoint holds."""

    state: TrainState
    history: Sequence[Metrics] = ()
    """The metrics of each evaluation so far, with their step."""
    interval: Sequence[Metrics] = ()
    """The metrics of each step since the last row of the log."""


class NonFiniteLoss(UserError, FloatingPointError):
    """Training met a loss, gradient or parameter that is not finite; `progress` is the run just before that step."""

    def __init__(self, step: int, progress: Progress):
        self.step = step
        self.progress = progress
        self.remarks: list[str] = []

    def __str__(self) -> str:
        what = f"step {self.step}: the loss, its gradient or the updated parameters are not finite"
        return "; ".join([what, *self.remarks])


class Hooks(NamedTuple):
    """What the loop calls; each gets what it needs and nothing else."""

    write: Callable[[int, Metrics], None]
    """A row of the log."""
    evaluate: Callable[[Variables], Metrics]
    save: Callable[[Progress, Metrics | None], None]
    """A checkpoint, with the metrics of the evaluation at this step if there was one."""
    stop: Callable[[Sequence[Metrics]], bool]
    """Whether to end early, from the history of evaluations, of which there is at least one."""
    interrupted: Callable[[int], bool]
    """Whether the run was asked to end; called with the number of the steps done after each of them, and after an evaluation.
    `batches` and `evaluate` may then raise `Stopped`."""
    progress: Callable[[int, Metrics], None]
    """Called after every step with its number and the latest metrics."""


def fit(
    train_step: TrainStep,
    progress: Progress,
    batches: Iterator[Batch],
    *,
    steps: int,
    every: Every,
    hooks: Hooks,
    clock: Clock,
) -> Progress:
    """Trains from where `progress` stands to step `steps`.

    The host runs a few steps ahead of the device, and no more: the metrics of an interval are fetched when the next one is
    full. An evaluation, a checkpoint or an interruption fetches all of them first, so that the log never lags behind a
    checkpoint.

    Args:
      train_step: jitted, with the state donated or not.
      progress: a fresh run, or one restored from a checkpoint.
      batches: on the device, from step `progress.state.step` on.
      steps: the number of the step before which to stop.
      every: intervals.
      hooks: what to call.
      clock: gets the time of each part.

    Returns:
      The run at its end; short of `steps` if it was stopped early or interrupted (see `hooks`).

    Raises:
      NonFiniteLoss: when a step was not finite and the train step latches such.
      ValueError: if `every.log` is less than 1, or another interval less than 0.
    """
    check_intervals(every)
    state, history, done = progress.state, list(progress.history), int(progress.state.step)
    under_way: list[Mapping[str, Any]] = []
    waited = time.perf_counter()

    def fail(step: int) -> NoReturn:
        raise NonFiniteLoss(step, Progress(state, history))

    log = LateLog(hooks.write, fail, progress.interval)
    stopped = bool(history) and hooks.stop(history)

    def save(metrics: Metrics | None) -> None:
        with clock("step"):
            log.catch_up()
        with clock("checkpoint"):
            hooks.save(Progress(state, history, log.interval), metrics)

    def evaluate() -> Metrics | None:
        nonlocal stopped
        with clock("step"):
            log.catch_up()
        with clock("evaluation"):
            try:
                metrics = hooks.evaluate(state.averaged)
            except Stopped:
                return None
            except Exception:
                save(None)
                raise
        if metrics:
            history.append({"step": done, **metrics})
            stopped = hooks.stop(history)
            hooks.write(done, metrics)
        return metrics or None

    def after_step() -> bool:
        """Evaluates and saves where that is due; whether to go on.

        An interruption only saves, and leaves an evaluation, or all of one that is under way, to the resumed run.
        """
        interrupted = hooks.interrupted(done)
        evaluated = bool(history) and history[-1]["step"] == done
        is_due = (due(done, every.evaluate) or done == steps) and not evaluated
        metrics = None
        if is_due and not interrupted:
            metrics = evaluate()
            interrupted = hooks.interrupted(done)
        if metrics or due(done, every.checkpoint) or done == steps or interrupted:
            save(metrics)
        return not (interrupted or stopped)

    going = after_step() if done > 0 else True
    while going and done < steps:
        with clock("data"):
            try:
                batch = next(batches)
            except Stopped:
                if done:
                    save(None)
                break
            except Exception:
                log.catch_up()
                raise
        with clock("step"):
            state, metrics = train_step(state, batch)
            done += 1
            log.add(metrics)
            under_way.append(metrics)
            over = len(under_way) - STEPS_AHEAD
            if over == STEPS_AHEAD or (over > 0 and time.perf_counter() - waited > LONG):
                jax.block_until_ready(under_way[over - 1])
                del under_way[:over]
                waited = time.perf_counter()
            if due(done, every.log) or done == steps:
                log.end_interval(done)
        hooks.progress(done, log.latest)
        going = after_step()
    return Progress(state, history, log.interval)


class LateLog:
    """Rows of the log, each written when the next interval is full, so that the host never waits for the newest step."""

    def __init__(
        self, write: Callable[[int, Metrics], None], fail: Callable[[int], NoReturn], interval: Sequence[Metrics] = ()
    ):
        self.write = write
        self.fail = fail
        self.interval: list[Mapping[str, Any]] = list(interval)
        """The metrics of each step since the last whole interval."""
        self.latest: Metrics = {}
        """The last row written."""
        self._whole: list[tuple[int, list]] = []

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Takes the metrics of a step, still on the device."""
        self.interval.append(metrics)

    def end_interval(self, step: int) -> None:
        """The interval ends with this step; the one before it is written."""
        self._whole.append((step, self.interval))
        self.interval = []
        self._write(keep=1)

    def catch_up(self) -> None:
        """Writes all whole intervals, and fetches the metrics of the one under way."""
        self._write(keep=0)
        self.interval = self._fetched(self.interval)

    def _write(self, keep: int) -> None:
        while len(self._whole) > keep:
            step, metrics = self._whole.pop(0)
            self.latest = interval_mean(self._fetched(metrics))
            self.write(step, self.latest)

    def _fetched(self, metrics: list) -> list[Mapping[str, Any]]:
        rows = fetch(metrics)
        failed = int(rows[-1].get("failed_step", -1)) if rows else -1
        if failed >= 0:
            self.fail(failed)
        return rows


def due(step: int, interval: int) -> bool:
    """Whether something done every `interval` steps is due after `step` steps."""
    return interval > 0 and step % interval == 0


def fetch(metrics: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Device scalars to Python numbers, their transfers side by side; on a CPU there are none."""
    if jax.default_backend() != "cpu":
        metrics = jax.device_get(metrics)
    return [{name: np.asarray(value).item() for name, value in row.items()} for row in metrics]


def evenly(steps: int, parts: int, log: int = 100) -> Every:
    """The intervals of a run that evaluates and saves `parts` times, evenly, the last time at the end."""
    interval = -(-steps // parts)
    return Every(log=log, evaluate=interval, checkpoint=interval)


def intervals(given: Mapping[str, int], otherwise: Every) -> Every:
    """The intervals of a config (`log`, `evaluate`, `checkpoint`, in steps); where one is 0, that of `otherwise`."""
    return Every(*(given[name] or getattr(otherwise, name) for name in Every._fields))
