"""What lighter networks lose: pruned, narrower, of four bits, and students with a teacher or alone.

    python experiments/benchmarks/lighter.py pruned --teacher=runs/quickstart --seeds=0,1,2 --epochs=8
    python experiments/benchmarks/lighter.py students --teacher=runs/quickstart --seeds=0,1,2,3,4 --epochs=2
    python experiments/benchmarks/lighter.py detectors --seeds=0,1,2

`pruned`: a quickstart trains on as it is, with 80 % zeros in each of its kernels, with 80 % of all kernels' weights together,
and without half of the channels of every stage's first convolution; the latter is timed beside the first, in turns.
`students`: SmallCNNs with a quarter of the parameters, alone and taught by the quickstart, each then with weights of 4 bits,
rounded after training and trained for it. `detectors`: SSDs on shapes of 64 px with a quarter of the teacher's parameters,
alone and taught. Differences are paired by seed, with a t interval. Seeds train one after another in one process with one
compiled step.
Results are in RESULTS.md beside this file.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy import stats

from jaxvision.experiment import Experiment, first_state_of, train_step_of
from jaxvision.nn.cnn import SmallCNN
from jaxvision.ops import losses
from jaxvision.optimize.pruning import fraction_of_zeros
from jaxvision.run import devices, provenance, restore
from jaxvision.run.config import configure, load
from jaxvision.run.evaluation import make_observe, measure
from jaxvision.tasks import classification, distillation
from jaxvision.train import TrainState, init_state
from jaxvision.trust.lighter.channels import flops, narrowed, without_channels
from jaxvision.trust.lighter.pruned import KERNELS, pruned_experiment
from jaxvision.trust.lighter.quantised import quantised, size_in_bytes
from jaxvision.types import Batch, Task, Variables

HERE = Path(__file__).parent.parent
LAPS = 20


class Train(Protocol):
    """`(experiment, start) -> variables`: the data, steps and seed of an experiment, from variables or fresh ones."""

    def __call__(self, of_seed: Experiment, start: Variables | None = None, /) -> Variables: ...  # noqa: D102


class Teacher(NamedTuple):
    """A trained network."""

    task: Task
    variables: Variables


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure what lighter networks lose.")
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--teacher", type=Path, metavar="DIR", help="the folder of a finished run of quickstart.py")
    parser.add_argument("--seeds", default="0,1,2", help="separated by commas")
    parser.add_argument("--epochs", type=int, default=3, help="of each training here")
    flags = parser.parse_args(argv)
    if flags.part != "detectors" and flags.teacher is None:
        parser.error(f"{flags.part} needs --teacher=DIR, the folder of a run of experiments/quickstart.py")
    here, began = provenance.machine(), time.monotonic()
    print(
        f"{date.today()}, {here['processor']}, {here['cores']} cores, JAX {jax.__version__}: {' '.join(sys.argv[1:])}",
        flush=True,
    )
    PARTS[flags.part](flags.teacher, [int(seed) for seed in flags.seeds.split(",")], flags.epochs)
    print(f"{(time.monotonic() - began) / 60:.0f} minutes", flush=True)


def quickstart(**fields: Any) -> Experiment:
    """The quickstart with these fields of its config."""
    return built("quickstart.py", fields)


def built(file: str, fields: Mapping[str, Any]) -> Experiment:
    module = load(HERE / file)
    config = configure(module.get_config(), {name: str(value) for name, value in fields.items()})
    devices.resolve_precision(config)
    return module.build(config)


def teacher_of(folder: Path) -> Teacher:
    """The network of a run, with its best checkpoint."""
    run, mesh = restore.restore(folder), devices.device_mesh(1)
    _, variables = restore.chosen_weights(run, restore.load_checkpoint(run, None, mesh).state, None)
    return Teacher(run.experiment.task, jax.device_get(variables))


def trainer(experiment: Experiment) -> Train:
    """The function that trains with one compiled step: of another experiment only data, order, steps and seed are taken."""
    step = jax.jit(train_step_of(experiment), donate_argnums=0)
    average = experiment.average

    def first(seed: Array) -> TrainState:
        key, spec = jax.random.key(seed), experiment.train.spec
        return init_state(experiment.task, experiment.optimizer, key, spec, average=average)

    def started(state: TrainState, start: Variables) -> TrainState:
        rest = {name: x for name, x in start.items() if name != "params"}
        state = state.replace(params=start["params"], collections={**state.collections, **rest})
        return state.replace(ema=average.init(state.current) if average else None)

    fresh, begun = jax.jit(first), jax.jit(started)

    def train(of_seed: Experiment, start: Variables | None = None, /) -> Variables:
        state, metrics = fresh(jnp.uint32(of_seed.seed)), {}
        state = state if start is None else begun(state, start)
        batches = of_seed.train.batches(0)
        for _ in range(of_seed.steps):
            state, metrics = step(state, next(batches))
        assert int(metrics["failed_step"]) < 0, "not finite"
        return jax.device_get(state.averaged)

    return train


def scorer(task: Task, experiment: Experiment, name: str) -> Callable[[Variables], float]:
    """The function that measures variables on the test data, in per cent."""
    test = experiment.evaluations["test"]
    observe, batches = make_observe(task.predict, test.metric), list(test.stream.batches(0))
    return lambda variables: 100 * measure(observe, variables, batches, test.metric).metrics[name]


def pruned(folder: Path, seeds: Sequence[int], epochs: int) -> None:
    teacher, plain = teacher_of(folder), tuned(0, epochs)
    batch = next(iter(plain.evaluations["test"].stream.batches(0)))
    found = without_channels(teacher.task, teacher.variables, batch, 0.5, "stage._conv1")
    task = narrowed(plain.task, found.arguments)
    sparse, globally = (pruned_experiment(plain, 0.8, end=plain.steps // 3, globally=each) for each in (False, True))
    cases = [(each, teacher.variables) for each in (plain, sparse, globally)]
    cases.append((plain._replace(task=task), found.variables))
    trains = [trainer(made) for made, _ in cases]
    score, narrow_score = (scorer(each, plain, "accuracy") for each in (plain.task, task))
    pairs = ((plain.task, teacher.variables), (task, found.variables))
    wide, narrow = (flops(each, variables, batch) for each, variables in pairs)
    print(f"{found.arguments}: {narrow / 1e6:.0f} of {wide / 1e6:.0f} MFLOPs ({narrow / wide:.3f}) a batch")
    print(f"time: {timed(*pairs, batch)}")
    print(f"before: {score(teacher.variables):.2f}, narrower {narrow_score(found.variables):.2f}", flush=True)
    rows = []
    for seed in seeds:
        *whole, less = (train(tuned(seed, epochs), start) for train, (_, start) in zip(trains, cases, strict=True))
        rows.append([*map(score, whole), narrow_score(less)])
        fractions = [100 * fraction_of_zeros(each["params"], KERNELS) for each in whole[1:]]
        said = ", ".join(f"{each:.2f}" for each in fractions)
        print(f"seed {seed}: {' '.join(f'{x:.2f}' for x in rows[-1])}; % zeros: {said}", flush=True)
    on, local, wide, less = np.transpose(rows)
    print(f"trained on {spread(on)}; with half of the FLOPs {spread(less)}: {interval(less - on)}")
    print(f"with 80 % zeros in each kernel {spread(local)}: {interval(local - on)}")
    print(f"with 80 % zeros in all together {spread(wide)}: {interval(wide - on)}", flush=True)


def tuned(seed: int, epochs: int) -> Experiment:
    """The quickstart for a network that is trained already, and is smaller then: a lower learning rate, less dropout."""
    return quickstart(seed=seed, epochs=epochs, learning_rate=4e-3, dropout=0.1)


def timed(wide: tuple[Task, Variables], narrow: tuple[Task, Variables], batch: Batch) -> str:
    """The times of both, in turns in one run."""
    calls = [(jax.jit(task.predict), jax.device_put(variables)) for task, variables in (wide, narrow)]
    batch, laps = jax.device_put(batch), ([], [])
    for lap in range(LAPS + 1):
        for (call, variables), seconds in zip(calls, laps, strict=True):
            began = time.process_time(), time.perf_counter()
            jax.block_until_ready(call(variables, batch))
            if lap:
                seconds.append((time.process_time() - began[0], time.perf_counter() - began[1]))
    (used, wall), (less, shorter) = (map(statistics.median, zip(*seconds, strict=True)) for seconds in laps)
    return (
        f"{1e3 * shorter:.1f} of {1e3 * wall:.1f} ms wall ({shorter / wall:.2f}), {1e3 * less:.1f} of {1e3 * used:.1f} ms of "
        f"processor ({less / used:.2f}), medians of {LAPS} in turns"
    )


def students(folder: Path, seeds: Sequence[int], epochs: int) -> None:
    teacher, small = teacher_of(folder), {"channels": "(8, 16, 32)", "dropout": 0.0}
    alone = quickstart(epochs=epochs, **small)
    learner = classification.classification(
        SmallCNN(10, (8, 16, 32), dropout=0.0), mean=73.0, std=90.0, loss=losses.distillation(4.0)
    )
    followed = alone._replace(task=classification.taught(learner, teacher.task, teacher.variables))
    longer = quickstart(epochs=1, learning_rate=1e-3, **small)
    of_bits = longer._replace(task=quantised(longer.task, 4))
    by_itself, by_teacher, more, for_bits = map(trainer, (alone, followed, longer, of_bits))
    score, rounded = (scorer(each.task, alone, "accuracy") for each in (alone, of_bits))
    rows = []
    for seed in seeds:
        data = quickstart(seed=seed, epochs=epochs)
        data_again = quickstart(seed=seed, epochs=1)
        plain, led = by_itself(data), by_teacher(data)
        led = {name: x for name, x in led.items() if name != "teacher"}
        tuned_on, trained = more(data_again, plain), for_bits(data_again, plain)
        rows.append([score(plain), score(led), rounded(plain), score(tuned_on), rounded(tuned_on), rounded(trained)])
        print(f"seed {seed}: {' '.join(f'{x:.2f}' for x in rows[-1])}", flush=True)
    plain, led, after, on, on_rounded, trained = np.transpose(rows)
    print(f"teacher {scorer(teacher.task, alone, 'accuracy')(teacher.variables):.2f}, ", end="")
    print(f"{parameters(teacher.variables)} parameters; students {parameters(first_state_of(alone).current)}")
    print(f"alone {spread(plain)}, taught {spread(led)}; taught minus alone: {interval(led - plain)}")
    print(f"4 bits after training: {spread(after)} of {spread(plain)}")
    print(
        f"one epoch more {spread(on)}, its weights rounded {spread(on_rounded)}, trained for 4 bits {spread(trained)}"
    )
    print(f"trained for 4 bits minus rounded: {interval(trained - after)}")
    print(f"trained for 4 bits minus one epoch more, rounded: {interval(trained - on_rounded)}")
    params = first_state_of(alone).params
    print(f"bytes of parameters: {size_in_bytes(params, 4)} of {sum(x.nbytes for x in jax.tree.leaves(params))}")


def detectors(folder: Path | None, seeds: Sequence[int], epochs: int) -> None:
    del folder
    teacher = shapes(seed=100, width=12, steps=200 * epochs)
    variables = trainer(teacher)(teacher)
    alone = shapes(width=6, steps=100 * epochs)
    followed = alone._replace(task=distillation.taught(alone.task, teacher.task, variables))
    by_itself, by_teacher = trainer(alone), trainer(followed)
    score = scorer(alone.task, alone, "AP")
    print(
        f"teacher AP {scorer(teacher.task, alone, 'AP')(variables):.2f}, {parameters(variables)} parameters; ", end=""
    )
    print(f"students {parameters(first_state_of(alone).current)}", flush=True)
    rows = []
    for seed in seeds:
        data = shapes(seed=seed, width=6, steps=100 * epochs)
        led = {name: x for name, x in by_teacher(data).items() if name != "teacher"}
        rows.append([score(by_itself(data)), score(led)])
        print(f"seed {seed}: AP alone {rows[-1][0]:.2f}, taught {rows[-1][1]:.2f}", flush=True)
    plain, led = np.transpose(rows)
    print(f"alone {spread(plain)}, taught {spread(led)}; taught minus alone: {interval(led - plain)}")


def shapes(**fields: Any) -> Experiment:
    """SSD on shapes of 64 px, 1,000 of them to learn from."""
    return built("shapes.py", {"detector": "ssd", "size": 64, "examples": 1000, **fields})


def parameters(variables: Variables) -> int:
    return sum(x.size for x in jax.tree.leaves(variables["params"]))


def spread(percent: np.ndarray) -> str:
    """Mean and standard deviation."""
    return f"{percent.mean():.2f}" + (f" ± {percent.std(ddof=1):.2f}" if len(percent) > 1 else "")


def interval(points: np.ndarray) -> str:
    """Mean of differences, and the 95 % interval of Student's t."""
    mean, n = points.mean(), len(points)
    if n < 2:
        return f"{mean:+.2f} points, one seed"
    reach = stats.t.ppf(0.975, n - 1) * points.std(ddof=1) / n**0.5
    return f"{mean:+.2f} points, {mean - reach:+.2f} to {mean + reach:+.2f} (95 %, {n} seeds)"


PARTS: Mapping[str, Callable[[Path, Sequence[int], int], None]] = {
    "pruned": pruned,
    "students": students,
    "detectors": detectors,
}

if __name__ == "__main__":
    main()
