"""Robustness of a run: its evaluation on the corruptions of ImageNet-C, each measurement kept at once.

python -m jaxvision.robustness --workdir=runs/quickstart [--kinds=fog,snow] [--severities=1,3,5] [--frost=FOLDER]
python -m jaxvision.robustness --workdir=runs/augmix0 --against=runs/plain0
python -m jaxvision.robustness --workdir=runs/detector --video=clip.mp4
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from jaxvision import commands
from jaxvision.errors import write_atomically
from jaxvision.machine.output import result

if TYPE_CHECKING:
    from jaxvision.run.checkpoint import Which
    from jaxvision.run.evaluation import Opened
    from jaxvision.train import Weights
    from jaxvision.trust.robustness import Robustness, Settings

COMMON = "common"
"""The 15 corruptions of ImageNet-C that figures are quoted of."""


class Flags(NamedTuple):
    """The command line."""

    workdir: Path
    overrides: dict[str, str]
    checkpoint: Which | None
    weights: Weights | None
    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    evaluation: str | None
    metric: str | None
    constants: Literal["imagenet", "cifar"] | None
    frost: Path | None
    seed: int
    against: Path | None
    video: Path | None
    score: float
    output: Path | None
    fsdp: int
    traceback: bool


def parse(argv: Sequence[str] | None) -> Flags:
    """The flags."""
    parser = commands.new_parser(
        "robustness",
        description="Evaluate a checkpoint of a run on corrupted images. What was measured is kept, so that the command can "
        "be interrupted and run again.",
        epilog="--config.FIELD=VALUE sets a field of the run's config: other data to evaluate on, say.",
    )
    commands.add_run_flags(parser)
    parser.add_argument(
        "--kinds",
        type=commands.names,
        default=(COMMON,),
        metavar="NAMES",
        help="corruptions, with commas between; 'common', which is taken unless said, are the 15 of ImageNet-C, 'held_out' "
        "its 4 others, 'occlusion' and 'deformation' are not of it; 'all' are all of them",
    )
    parser.add_argument(
        "--severities", type=commands.names, default=tuple("12345"), metavar="1,2,...", help="each from 1 to 5"
    )
    parser.add_argument("--eval", metavar="NAME", help="the evaluation; the first of the experiment unless said")
    parser.add_argument("--metric", metavar="NAME", help="the metric to judge by, of which more is better")
    parser.add_argument(
        "--constants",
        choices=("imagenet", "cifar"),
        help="those of ImageNet-C or CIFAR-10-C; by the size of the canvas unless said: CIFAR-10-C's below 64 pixels",
    )
    parser.add_argument(
        "--frost", type=commands.expanded, metavar="FOLDER", help="frost1.png to frost6.jpg of ImageNet-C"
    )
    parser.add_argument("--seed", type=commands.whole_number(0), default=0, metavar="N", help="of the random numbers")
    parser.add_argument(
        "--against",
        type=commands.expanded,
        metavar="DIR",
        help="another run, measured alike: what the run is better by, kind by kind, paired by image",
    )
    parser.add_argument(
        "--video",
        type=commands.expanded,
        metavar="FILE",
        help="in place of corruptions: how often predictions change from one frame of this video to the next",
    )
    parser.add_argument(
        "--score", type=commands.fraction, default=0.3, metavar="T", help="of --video: leave out objects below it (0.3)"
    )
    parser.add_argument(
        "--output", type=commands.output_folder, metavar="FOLDER", help="in place of robustness/ in the workdir"
    )
    flags, overrides = commands.parsed(parser, argv)
    known = vars(flags)
    severities = tuple(int(text) if text.isascii() and text.isdecimal() else text for text in known.pop("severities"))
    return Flags(
        overrides=overrides,
        corruptions=known.pop("kinds"),
        severities=severities,
        evaluation=known.pop("eval"),
        **known,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = parse(argv)
    work = report if flags.video is None else watch
    return commands.status_of(lambda: work(flags), flags.traceback)


def report(flags: Flags) -> int:
    """Measures on corruptions as the command line asks; returns the exit status."""
    from jaxvision.run import devices
    from jaxvision.trust import against, corruptions, robustness_report
    from jaxvision.trust.robustness import chosen_metric

    groups = {COMMON: corruptions.COMMON, "held_out": corruptions.HELD_OUT, "occlusion": corruptions.OCCLUSIONS}
    groups |= {"deformation": corruptions.DEFORMATIONS, "all": corruptions.EVERY}
    names = _expanded(flags.corruptions, groups)
    for name in names:
        for severity in flags.severities:
            corruptions.check(name, severity)
    devices.keep_compilations()
    folder = flags.output or flags.workdir / "robustness"
    ours = _measured(flags, flags.workdir, names, folder)
    by = ours.run.run.experiment.keep.by
    metric = chosen_metric(ours.found.clean.metrics, flags.metric, by.partition("/")[2] if by else None)
    run, settings, stream = ours.run, ours.settings, ours.run.evaluations[ours.evaluation].stream
    title = f"Robustness of {flags.workdir.name}, {ours.evaluation}, step {run.step:,}, {run.weights} weights"
    notes = [*ours.left_out, _on_constants(settings.family, metric)]
    paths = robustness_report.write(folder, ours.found, metric, stream, settings, title, notes)
    text = f"{robustness_report.as_markdown(ours.found, metric, title, notes)}\n"
    if flags.against is not None:
        other = _measured(flags, flags.against, names, flags.against / "robustness", ours.evaluation)
        against.check_same_data(stream.about(), other.run.evaluations[other.evaluation].stream.about())
        rows = against.differences(ours.found, other.found, metric)
        text += f"{against.as_markdown(rows, metric, (str(flags.workdir), str(flags.against)))}\n"
        paths.append(folder / f"against_{flags.against.resolve().name}.csv")
        write_atomically(paths[-1], against.as_csv(rows))
    result(f"{text}{folder}: {', '.join(p.name for p in paths)}")
    return 0


class _Measured(NamedTuple):
    """What was measured of a run."""

    run: Opened
    evaluation: str
    settings: Settings
    left_out: list[str]
    found: Robustness


def _measured(
    flags: Flags, workdir: Path, names: Sequence[str], folder: Path, evaluation: str | None = None
) -> _Measured:
    """Measures one run as the command line asks, and keeps measurements in the folder."""
    from jaxvision.run import evaluation as evaluating
    from jaxvision.trust import robustness

    commands.under_way(f"loading {workdir}, then compiling: seconds to minutes")
    evaluation = flags.evaluation or evaluation
    run = evaluating.opened(
        workdir,
        flags.checkpoint,
        weights=flags.weights,
        names=() if evaluation is None else (evaluation,),
        overrides=flags.overrides,
        fsdp=flags.fsdp,
    )
    name = evaluation or next(iter(run.evaluations))
    settings, left_out = robustness.settings_for(
        run.evaluations[name], names, flags.severities, flags.seed, flags.constants, flags.frost
    )
    said = lambda key: commands.under_way(f"{key} of {name}")
    found = robustness.measure(run, name, settings, folder / "measured" / name, said)
    return _Measured(run, name, settings, left_out, found)


def watch(flags: Flags) -> int:
    """Measures on a video as the command line asks; returns the exit status."""
    from jaxvision.run import devices, prediction
    from jaxvision.trust import video

    assert flags.video is not None
    devices.keep_compilations()
    commands.under_way(f"loading {flags.workdir}, then compiling: seconds to minutes")
    model = prediction.load(
        flags.workdir,
        flags.checkpoint,
        weights=flags.weights,
        evaluation=flags.evaluation,
        overrides=flags.overrides,
        fsdp=flags.fsdp,
    )
    found = video.stability(model, flags.video, flags.score)
    path = (flags.output or flags.workdir / "robustness") / f"video_{flags.video.stem}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, video.as_json(found, flags.video))
    result(f"{video.told(found, flags.video)}\n{path}")
    return 0


def _on_constants(family: str, metric: str) -> str:
    text = {"imagenet": "ImageNet-C", "cifar": "CIFAR-10-C"}[family]
    more = " CE and mCE are errors as multiples of AlexNet's on ImageNet-C." if metric == "accuracy" else ""
    return f"Constants of {text}.{more}"


def _expanded(names: Sequence[str], groups: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The names, those of groups as what they stand for, each once."""
    return tuple(dict.fromkeys(each for name in names for each in groups.get(name, (name,))))


if __name__ == "__main__":
    commands.enter(main)
