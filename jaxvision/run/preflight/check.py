"""Everything that can be known to be wrong before the first step of a run, and what the run is about to do.

Nothing is trained. All problems are collected; none hides another where it need not. Checked and reported: the settings;
examples and classes of each stream, every image decoded, or a sample of many; whether the network has as many classes as the
data, and the batch can be split over the devices; parameters by module, with group, rate and weight decay, what is frozen;
FLOPs of an image; the memory of the compiled step against the device's. Pictures show a decoded and an augmented batch.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxvision import train
from jaxvision.draw.batch import batch_sheet
from jaxvision.draw.figure import save
from jaxvision.errors import amount, write_atomically
from jaxvision.experiment import (
    Experiment,
    check_classes,
    check_kept,
    check_names,
    check_seed,
    check_steps,
    first_state_of,
    streams,
)
from jaxvision.run import devices
from jaxvision.run.devices import step_on
from jaxvision.run.evaluation import make_observe
from jaxvision.run.preflight import cost
from jaxvision.run.preflight.data import check_batches, check_data
from jaxvision.run.preflight.findings import Finder, Findings, said, table
from jaxvision.run.remarks import head_mismatch
from jaxvision.train import TrainState, TrainStep
from jaxvision.types import About, Variables


def check(
    chosen: Experiment,
    mesh: Mesh,
    folder: Path,
    check_workdir: Callable[[], object] = lambda: None,
    say: Callable[[str], object] = lambda line: None,
) -> Findings:
    """Checks an experiment as it would be trained on these devices.

    Args:
      chosen: the experiment.
      mesh: all devices of this process.
      folder: gets `report.txt`, tables (`parameters.txt`, `classes.txt`, `unreadable.txt` if there are such) and pictures
        (`decoded.png`, `augmented.png`).
      check_workdir: raises an error if the run may not begin, or go on, where it is to be kept.
      say: gets a line before what takes long. Where the check is ended early, `report.txt` has what was found until then.

    Raises:
      OSError: if the folder can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = Finder()
    try:
        _check(found, chosen, mesh, folder, check_workdir, say)
    finally:
        findings = found.findings()
        write_atomically(folder / "report.txt", findings.report)
    return findings


def _check(
    found: Finder,
    chosen: Experiment,
    mesh: Mesh,
    folder: Path,
    check_workdir: Callable[[], object],
    say: Callable[[str], object],
) -> None:
    with found.part("settings"):
        check_seed(chosen)
        check_steps(chosen)
        check_names(chosen)
    with found.part("settings"):
        check_kept(chosen)
    with found.part("settings"):
        train.check_intervals(chosen.every)
    say("reading the data")
    abouts = check_data(found, streams(chosen), folder)
    if len(abouts) == len(streams(chosen)):
        with found.part("workdir"):
            check_workdir()
    say("tracing the network, filling it with weights, compiling the training step: seconds to minutes")
    _check_network(found, chosen, abouts)
    if _check_step(found, chosen, mesh, folder):
        say("reading and drawing batches")
        check_batches(found, streams(chosen), abouts)
        if "train" in abouts:
            with found.part("train"):
                _draw(chosen, abouts["train"], folder)
                found.tell(f"pictures: {folder / 'decoded.png'}, {folder / 'augmented.png'}")


def _check_network(found: Finder, chosen: Experiment, abouts: Mapping[str, About]) -> None:
    """What the network makes of the batches of each stream: its classes, and the rows that the metric observes."""
    with found.part("the network"):
        variables = _variables(chosen)
        for name, about in abouts.items():
            with found.part(name):
                spec = streams(chosen)[name].spec.replace(target=None)
                mismatch = head_mismatch(jax.eval_shape(chosen.task.predict, variables, spec), about)
                if mismatch is not None:
                    found.problem(name, mismatch)
        for name, evaluation in chosen.evaluations.items():
            with found.part(f"the metric of evaluation {name}"):
                if f"evaluation {name}" in abouts:
                    check_classes(evaluation.metric, abouts[f"evaluation {name}"])
                make_observe(chosen.task.predict, evaluation.metric).eval_shape(variables, evaluation.stream.spec)


def _variables(chosen: Experiment) -> Variables:
    def init() -> Variables:
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), chosen.train.spec)
        return chosen.task.init(jax.random.key(0), zeros)

    return jax.eval_shape(init)


def _check_step(found: Finder, chosen: Experiment, mesh: Mesh, folder: Path) -> bool:
    """Traces and compiles the training step; False if it is too large for the devices."""
    for name, stream in streams(chosen).items():
        with found.part(name):
            devices.check_divisible(stream.spec, mesh)
    with found.part("the training step"):
        step, like = step_on(mesh, chosen)
        _tell_parameters(found, chosen, like, folder)
        with found.part("start"):
            _check_start(chosen, mesh, like)
        devices.check_divisible(chosen.train.spec, mesh)
        try:
            _check_cost(found, chosen, mesh, step, like)
        except cost.DoesNotFit as error:
            found.problem("memory", said(error))
            return False
    return True


def _check_start(chosen: Experiment, mesh: Mesh, like: TrainState) -> None:
    """Puts the pretrained weights, if there are some, into fresh variables."""
    if chosen.start is None:
        return
    state = first_state_of(chosen, layout=lambda shapes: devices.layout(mesh, shapes))
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), state)
    if shapes != jax.tree.map(lambda x: (x.shape, x.dtype), like):
        raise ValueError("it changes the structure, the shapes or the types of the variables")


def _tell_parameters(found: Finder, chosen: Experiment, like: TrainState, folder: Path) -> None:
    """All parameters into `parameters.txt`, those of each top-level module into the report."""
    every = cost.parameters(like, chosen.optimizer, chosen.steps)
    head = ["trained", "rate", "decay"]
    rows = [[each.name, "x".join(map(str, each.shape)), f"{each.count:,}", *_how([each])] for each in every]
    lines = table([["parameter", "shape", "count", *head], *rows])
    write_atomically(folder / "parameters.txt", "\n".join(lines) + "\n")
    modules: dict[str, list[cost.Parameter]] = {}
    for each in every:
        modules.setdefault(each.name.partition("/")[0], []).append(each)
    rows = [[name, f"{sum(each.count for each in group):,}", *_how(group)] for name, group in modules.items()]
    frozen = [each for each in every if each.treatment is None]
    found.tell("parameters", *(f"    {line}" for line in table([["module", "parameters", *head], *rows])))
    found.tell("  rate: of the first step, beside the highest; decay: how many shrink where they have no gradient")
    total, still = (sum(each.count for each in group) for group in (every, frozen))
    state = cost.bytes_on_device(like.opt_state)
    found.tell(
        f"  {amount(total, 'parameter')}, {still:,} of them frozen; optimizer state: {cost.size(state)} on each device"
    )


def _how(group: Sequence[cost.Parameter]) -> list[str]:
    """Whether, or in which groups, parameters are trained; at which rates; how many numbers decay."""
    groups = ["no" if each.treatment is None else each.treatment.group or "yes" for each in group]
    treated = [(each.count, each.treatment) for each in group if each.treatment is not None]
    rates = [f"{rate:.3g}" for rate in sorted({how.rate for _, how in treated if how.rate is not None})]
    decay = sum(count for count, how in treated if how.decays)
    cells = [" to ".join(dict.fromkeys([rates[0], rates[-1]])), f"{decay:,}"] if rates else ["?" * bool(treated)] * 2
    return [", ".join(dict.fromkeys(groups)), *cells]


def _check_cost(found: Finder, chosen: Experiment, mesh: Mesh, step: TrainStep, like: TrainState) -> None:
    """Compiles the step for the devices; it must fit their memory."""
    batch_size, device = chosen.train.spec.image.shape[0], mesh.devices.flat[0]
    flops, memory = cost.measure(step.lower(like, devices.batch_on(mesh, chosen.train.spec)))
    canvas = "x".join(map(str, chosen.train.spec.image.shape[1:]))
    found.tell(
        f"the training step: {amount(batch_size, 'image')} {canvas} on {amount(mesh.size, f'{device.device_kind} device')}"
    )
    if flops is not None:
        units = ("FLOPs", "kFLOPs", "MFLOPs", "GFLOPs", "TFLOPs")
        found.tell(f"  {cost.scaled(flops / batch_size, units)} an image, forward and backward, as XLA counts")
    limit = cost.capacity(device)
    if memory is None:
        return
    state = cost.bytes_on_device(like)
    of_all = f" of {cost.size(limit)}" if limit is not None else ""
    found.tell(f"  memory on each device: {cost.size(memory.total)}{of_all}: {cost.describe(memory, state)}")
    if limit is not None:
        cost.check_fits(memory, limit, state, batch_size, mesh.size)


def _draw(chosen: Experiment, about: About, folder: Path) -> None:
    """The first batch, as it is decoded and as the first step augments it."""
    batch = next(chosen.train.batches(0))
    save(batch_sheet(batch, about.classes, about.name, title="the first batch, decoded"), folder / "decoded.png")
    if chosen.augment is not None:
        key = jax.jit(lambda: train.step_keys(first_state_of(chosen, start=False)))()[0]
        batch = jax.jit(chosen.augment)(key, jnp.int32(0), batch)
    save(batch_sheet(batch, about.classes, about.name, title="the first batch, augmented"), folder / "augmented.png")
