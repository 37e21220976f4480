"""What augmentation costs on the device: in a training step of ResNet-18, and each augmentation alone.

    python experiments/benchmarks/augmentation.py

The step with affine, four colours and erasing, and the same step without, take turns on the same batch; so do the
augmentations alone. Beside the time on the clock stands that of all threads of the process on the CPU, which other work on
the machine disturbs less. Takes about ten minutes on two CPU cores. Prints two tables; results are in RESULTS.md beside
this file.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from datetime import date
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxvision import augment as au
from jaxvision import train
from jaxvision.nn.resnet import resnet18
from jaxvision.run import provenance
from jaxvision.tasks.classification import classification
from jaxvision.types import Augment, Batch, Labels

CLASSES = 10
PAIRS, TURNS = 16, 15
USUAL = {"rotation": 40, "shift": 0.2, "shear": 0.2, "zoom": 0.2}
COLOURS = (au.brightness(0.4), au.contrast(0.4), au.saturation(0.4), au.hue(0.1))
TOGETHER = au.chain(au.affine(**USUAL), *COLOURS, au.random_erasing())
ALONE = {
    "flip": au.flip(),
    "vertical_flip": au.vertical_flip(),
    "pad_and_crop": au.pad_and_crop(4),
    "affine": au.affine(**USUAL),
    "affine, nearest": au.affine(**USUAL, interpolation="nearest"),
    "perspective": au.perspective(),
    "resized_crop": au.resized_crop(),
    "brightness": au.brightness(0.4),
    "contrast": au.contrast(0.4),
    "saturation": au.saturation(0.4),
    "hue": au.hue(0.1),
    "gamma": au.gamma(0.4),
    "greyscale": au.greyscale(),
    "solarize": au.solarize(),
    "posterize": au.posterize(),
    "autocontrast": au.autocontrast(),
    "equalize": au.equalize(),
    "sharpness": au.sharpness(0.9),
    "blur": au.blur(),
    "noise": au.noise(10.0),
    "jpeg": au.jpeg(),
    "random_erasing": au.random_erasing(),
    "mixup": au.mixup(0.2, CLASSES),
    "cutmix": au.cutmix(1.0, CLASSES),
    "randaugment": au.randaugment(),
    "trivialaugment": au.trivialaugment(),
    "augmix": au.augmix(),
    "affine, colours, erasing": TOGETHER,
}


class Form(NamedTuple):
    """Images of one size, and the network in the form for it."""

    side: int
    batch_size: int
    stem: str


FORMS = (Form(32, 64, "cifar"), Form(128, 32, "imagenet"))


def batch(count: int, side: int) -> Batch:
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8))
    label = jnp.asarray(rng.integers(0, CLASSES, count).astype(np.int32))
    size, index = jnp.full((count, 2), side, jnp.int32), jnp.arange(count, dtype=jnp.int32)
    return Batch(image, size, size, index, index >= 0, Labels(label))


class Took(NamedTuple):
    """Seconds on the clock, and of all threads on the CPU."""

    clock: float
    cpu: float


def took(run: Callable) -> Took:
    clock, cpu = time.perf_counter(), time.process_time()
    jax.block_until_ready(run())
    return Took(time.perf_counter() - clock, time.process_time() - cpu)


def in_turns(runs: Sequence[Callable], turns: int) -> list[list[Took]]:
    """What each took, in every turn; compiled before, and every other turn goes backwards."""
    for run in runs:
        jax.block_until_ready(run())
    every: list[list[Took]] = [[] for _ in runs]
    for turn in range(turns):
        for number in range(len(runs))[:: 1 if turn % 2 else -1]:
            every[number].append(took(runs[number]))
    return every


def step_with(form: Form, augment: Augment | None) -> Callable:
    task = classification(resnet18(CLASSES, stem=form.stem))
    optimizer, given = optax.sgd(0.1, momentum=0.9), batch(form.batch_size, form.side)
    state = train.init_state(task, optimizer, jax.random.key(0), jax.eval_shape(lambda: given))
    step = jax.jit(train.make_train_step(task, optimizer, augment=augment))
    return lambda: step(state, given)


def in_the_step(form: Form) -> str:
    """A row of the first table."""
    plain, augmented = in_turns([step_with(form, None), step_with(form, TOGETHER)], PAIRS)
    cells = [f"{form.side} px, {form.stem} stem, batch {form.batch_size}"]
    for less, more in ((plain, augmented), (_cpu(plain), _cpu(augmented))):
        medians = [f"{statistics.median(each.clock for each in times) * 1e3:.0f}" for times in (less, more)]
        low, middle, high = statistics.quantiles([b.clock / a.clock - 1 for a, b in zip(less, more, strict=True)], n=4)
        cells.append(f"{' / '.join(medians)} ms: {middle:+.1%} ({low:+.1%} to {high:+.1%})")
    return f"| {' | '.join(cells)} |"


def _cpu(times: Sequence[Took]) -> list[Took]:
    return [Took(each.cpu, each.cpu) for each in times]


def alone(form: Form) -> list[str]:
    """Milliseconds an image of each augmentation: median and quartiles on the clock, median on the CPU."""
    given, key = batch(form.batch_size, form.side), jax.random.key(0)

    def run(augment: Augment) -> Callable:
        jitted = jax.jit(augment)
        return lambda: jitted(key, jnp.int32(0), given)

    every = in_turns([run(augment) for augment in ALONE.values()], TURNS)
    per_image = [
        [[1e3 * part / form.batch_size for part in parts] for parts in zip(*times, strict=True)] for times in every
    ]
    clock = [statistics.quantiles(each[0], n=4) for each in per_image]
    cpu = [statistics.median(each[1]) for each in per_image]
    return [
        f"{mid:.3f} ({low:.3f} to {high:.3f}), {seconds:.3f}"
        for (low, mid, high), seconds in zip(clock, cpu, strict=True)
    ]


def main() -> None:
    steps, columns = [in_the_step(form) for form in FORMS], [alone(form) for form in FORMS]
    here, versions = provenance.machine(), provenance.versions()
    print(f"\n{date.today()}, {here['processor']}, {here['cores']} cores, {here['backend']}", end="; ")
    print(", ".join(f"{name} {versions[name]}" for name in ("jax", "jaxlib", "flax", "optax", "python")) + "\n")
    print(f"| ResNet-18 step, without / with; the cost is the median of {PAIRS} pairs (quartiles) | clock | CPU |")
    print("|---|---|---|")
    print("\n".join(steps))
    print(
        "\n| alone, ms an image: median (quartiles), on the CPU | "
        + " | ".join(f"{form.side} px" for form in FORMS)
        + " |"
    )
    print("|---|" + "---|" * len(FORMS))
    for name, *cells in zip(ALONE, *columns, strict=True):
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
