"""The examples of a stream, looked at before training: how many, of which classes, whether each can be read."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from jaxvision.errors import amount, write_atomically
from jaxvision.machine.limits import cores
from jaxvision.run.preflight.findings import Finder, table
from jaxvision.run.remarks import class_differences
from jaxvision.types import About, Batch, Fault, Stream

READ = 20_000
"""The largest number of examples of a stream that are read and decoded."""
COUNTED = 200_000
"""The largest number of examples of a stream whose classes are counted: some sources read them all for that."""
SHOWN = 20
"""Examples of a stream that can't be read and are problems of their own; classes that are listed in the report."""
BLOCK = 16


def check_data(found: Finder, streams: Mapping[str, Stream], folder: Path) -> dict[str, About]:
    """Opens the data of all streams and reads their examples; returns what is known of those that open.

    The folder gets `classes.txt`, how many examples each class has, and `unreadable.txt`, if there are any.
    """
    abouts: dict[str, About] = {}
    for name, stream in streams.items():
        with found.part(name):
            abouts[name] = stream.about()
    found.tell("data")
    unreadable: list[str] = []
    for name, about in abouts.items():
        with found.part(name):
            faults, read = _read(name, streams[name], about)
            unreadable += [f"{name}: {fault.text}" for fault in faults]
            found.tell(f"  {name}: {_summary(about, faults, read)}", *(f"    {note}" for note in about.notes))
            for doubt in about.doubts:
                found.problem(name, doubt)
            _tell_faults(found, name, faults)
    if unreadable:
        write_atomically(folder / "unreadable.txt", "\n".join(unreadable) + "\n")
        found.tell("  their names are in unreadable.txt")
    for name, text in class_differences(abouts).items():
        found.problem(name, text)
    _tell_classes(found, abouts, folder)
    return abouts


def chosen_examples(count: int) -> np.ndarray:
    """Which of `count` examples to read: all, or the first ones, the last ones and others at random."""
    if count <= READ:
        return np.arange(count)
    ends = np.concatenate([np.arange(READ // 10), np.arange(count - READ // 10, count)])
    between = np.random.default_rng(0).choice(
        np.arange(READ // 10, count - READ // 10), READ - len(ends), replace=False
    )
    return np.sort(np.concatenate([ends, between]))


def _read(name: str, stream: Stream, about: About) -> tuple[list[Fault], int]:
    """What is wrong with the examples, and how many were read."""
    if stream.faults is None:
        return [], 0
    indices = chosen_examples(about.examples).tolist()
    blocks = [indices[start : start + BLOCK] for start in range(0, len(indices), BLOCK)]
    faults: list[Fault] = []
    bar = tqdm(total=len(indices), desc=f"reading {name}", unit="example", disable=None, leave=False)
    with bar, ThreadPoolExecutor(cores()) as threads:
        for block, read in zip(blocks, threads.map(stream.faults, blocks), strict=True):
            faults += read
            bar.update(len(block))
    return faults, len(indices)


def _summary(about: About, faults: Sequence[Fault], read: int) -> str:
    which = "all read" if read == about.examples else f"{read:,} of them read: the first, the last, others at random"
    if not read:
        which = "not read: this stream can't examine its examples"
    skipped = sum(fault.skipped for fault in faults)
    bad = [f"{skipped} unreadable and left out"] * bool(skipped)
    bad += [f"{len(faults) - skipped} can't be used"] * (len(faults) > skipped)
    return "; ".join([f"{amount(about.examples, 'example')} of {amount(len(about.classes), 'class')}", which, *bad])


def _tell_faults(found: Finder, name: str, faults: Sequence[Fault]) -> None:
    bad = [fault.text for fault in faults if not fault.skipped]
    for text in bad[:SHOWN]:
        found.problem(name, text)
    if len(bad) > SHOWN:
        found.problem(name, f"{amount(len(bad) - SHOWN, 'more example')} can't be used (all in unreadable.txt)")
    if bad:
        found.tell("    where the experiment has on_bad_image, --config.on_bad_image=skip passes over such images")


def _tell_classes(found: Finder, abouts: Mapping[str, About], folder: Path) -> None:
    """A table of how many examples each class has in each stream."""
    counts: dict[str, dict[str, int]] = {}
    for name, about in abouts.items():
        if about.counts is not None and about.examples <= COUNTED:
            with found.part(name):
                counts[name] = dict(zip(about.classes, about.counts(), strict=True))
    if not counts:
        return
    every = list(dict.fromkeys(each for count in counts.values() for each in count))
    rows = [[each, *(f"{count[each]:,}" if each in count else "-" for count in counts.values())] for each in every]
    lines = table([["class", *counts], *rows])
    write_atomically(folder / "classes.txt", "\n".join(lines) + "\n")
    if len(every) <= SHOWN:
        found.tell(*(f"    {line}" for line in lines))
    for name, count in counts.items():
        few, many = min(count, key=count.__getitem__), max(count, key=count.__getitem__)
        if len(every) > SHOWN:
            found.tell(
                f"    {name}: from {count[few]:,} ({few}) to {count[many]:,} ({many}) examples a class (classes.txt)"
            )
        if not count[few]:
            found.tell(
                f"    {name} has no example of {amount(sum(not n for n in count.values()), 'class')}, such as {few!r}"
            )


def check_batches(found: Finder, streams: Mapping[str, Stream], abouts: Mapping[str, About]) -> None:
    """Reads the first batch of every stream, and the last one of every evaluation, against what the stream announces."""
    for name, about in abouts.items():
        stream = streams[name]
        last = -(-about.examples // stream.spec.image.shape[0]) - 1
        for step in {0} if name == "train" else {0, last}:
            with found.part(name):
                _check_like(next(stream.batches(step)), stream.spec)


def _check_like(batch: Batch, spec: Batch) -> None:
    given, promised = (jax.tree.map(lambda x: f"{x.dtype}{list(x.shape)}", tree) for tree in (batch, spec))
    if given != promised:
        raise ValueError(f"its batches are not what it announces: {given} in place of {promised}")
