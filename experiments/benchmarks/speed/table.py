"""Tables of RESULTS.md: what was measured as lines of Markdown, and what those lines say, for the README's table."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from experiments.benchmarks.speed.contest import Contest, Missing, Results, Side, Spread, Told, ratio, slowest, spread

COLUMNS = (
    *("what", "cores", "program", "time", "processor time", "memory, MB", "theirs / ours", "memory, ours / theirs"),
    "of the machine",
)
HEAD = f"| {' | '.join(COLUMNS)} |"
RULE = f"|{'---|' * len(COLUMNS)}"
SPEED_HEAD = "| what | all cores: theirs / ours | one core |"
PLACE = re.compile(r"^`python -m .*?`, [0-9]{4}-[0-9]{2}-[0-9]{2}, (.*?), [0-9]+ cores")
"""The line of a section that says where it was measured."""
OTHER = "¹²³⁴⁵⁶⁷⁸⁹"
"""Marks of processors other than the one that measured most."""


class Figure(NamedTuple):
    """Something that is counted or computed rather than raced for."""

    name: str
    value: float
    unit: str
    least: float | None = None
    most: float | None = None

    @property
    def met(self) -> bool:
        """Whether the value is as it should be."""
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)


def seconds(told: Spread) -> str:
    """Times with their quartiles, in the unit that suits them."""
    factor, unit = (1.0, "s") if told.median >= 1 else (1e3, "ms") if told.median >= 1e-3 else (1e6, "µs")
    return f"{told.median * factor:.3g} {unit} ({told.low * factor:.3g} to {told.high * factor:.3g})"


def plain(told: Spread) -> str:
    return f"{told.median:.2f} ({told.low:.2f} to {told.high:.2f})"


def aimed(value: Spread, side: Side) -> str:
    """The ratio, and whether it is as large as the aim."""
    if side.least is None:
        return plain(value)
    return f"{plain(value)}, aim {side.least:.3g}{'' if value.median >= side.least else ': **missed**'}"


def share(contest: Contest, told: Told, machine: tuple[float, float]) -> str:
    """The part of what a matrix product, and a copy in memory, reach."""
    took, parts = spread([block.seconds for block in told.blocks]).median, []
    if contest.gigaflop:
        parts.append(f"{100 * contest.gigaflop / took / machine[0]:.0f} % of GEMM")
    if contest.gigabyte:
        parts.append(f"{100 * contest.gigabyte / took / machine[1]:.0f} % of copy")
    return ", ".join(parts)


def lines(contest: Contest, results: Results, machine: tuple[float, float]) -> Iterator[str]:
    """Rows of a contest, one for each side."""
    cores = "all" if contest.cores is None else str(contest.cores)
    ours = results[contest.sides[0].name]
    assert isinstance(ours, Told)
    for side in contest.sides:
        told = results[side.name]
        if isinstance(told, Missing):
            yield row(contest.name, cores, side.name, f"missing: {told.why}", "", "", "", "", "")
            continue
        compared = ("", "")
        if side is not contest.sides[0]:
            compared = aimed(ratio(told, ours), side), memory(ours, told, side)
        yield row(
            *(contest.name, cores, side.name, times(told, lambda block: block.seconds)),
            times(told, lambda block: block.processor_seconds),
            f"{max(block.bytes for block in told.blocks) / 1e6:,.0f}",
            *compared,
            share(contest, told, machine),
        )
    if contest.slowest is not None:
        name = "the slowest part"
        compared = aimed(ratio(slowest(results), ours), Side(name, "", least=contest.slowest))
        yield row(contest.name, cores, name, "", "", "", compared, "", "")


def memory(ours: Told, theirs: Told, side: Side) -> str:
    """Ours by theirs, where it is asked for."""
    if side.memory is None:
        return ""
    most = max(block.bytes for block in ours.blocks) / max(1.0, *(block.bytes for block in theirs.blocks))
    return f"{most:.2f}, aim {side.memory:g}{': **missed**' if most > side.memory else ''}"


def times(told: Told, field) -> str:
    return seconds(spread([field(block) for block in told.blocks]))


def row(*cells: str) -> str:
    return f"| {' | '.join(each.replace('|', '/') for each in cells)} |".replace("  ", " ")


def figure(told: Figure) -> str:
    """A line of a list."""
    aims = [f"at least {told.least:g}"] if told.least is not None else []
    aims += [f"at most {told.most:g}"] if told.most is not None else []
    aim = f", aim: {' and '.join(aims)}{'' if told.met else ': **missed**'}" if aims else ""
    return f"- {told.name}: {told.value:,.4g}{f' {told.unit}' if told.unit else ''}{aim}"


class Speed(NamedTuple):
    """What a row of RESULTS.md says of a peer."""

    what: str
    cores: str
    beside: str
    ratio: str
    memory: str = ""
    processor: str = ""


def read(text: str) -> list[Speed]:
    """The rows of peers in RESULTS.md, which is appended to: of each contest those of the newest section that has it."""
    found: dict[tuple[str, str], list[Speed]] = {}
    inside, contest, processor = False, ("", ""), ""
    for line in text.splitlines():
        if place := PLACE.match(line):
            processor = place[1]
        inside = line == HEAD or (inside and line.startswith("|"))
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not inside or line in (HEAD, RULE) or len(cells) != len(COLUMNS):
            contest = ("", "")
            continue
        if (cells[0], cells[1]) != contest:
            contest = cells[0], cells[1]
            found.pop(contest, None)
            found[contest] = []
        if cells[6]:
            found[contest].append(Speed(*contest, cells[2], cells[6], cells[7], processor))
    return [each for rows in found.values() for each in rows]


def memories(rows: Iterable[Speed]) -> str:
    """The least and the most memory, ours by theirs, where an aim is set for it, in a sentence."""
    told = [(float(each.memory.split(",")[0]), each.beside, each.what) for each in rows if each.memory]
    if not told:
        return "Memory was not compared."
    (least, *of_least), (most, *of_most) = min(told), max(told)
    told_of = lambda value, of: f"{value:.2f} ({of[0]}, {of[1]})"
    return f"Memory where it has an aim, ours by theirs: {told_of(least, of_least)} to {told_of(most, of_most)}."


def speed(rows: Iterable[Speed]) -> Sequence[str]:
    """The README's table: what was raced, and for all cores and for one what each peer takes by what ours takes."""
    rows = list(rows)
    usual, *others = [name for name, _ in Counter(each.processor for each in rows).most_common()] or [""]
    marks = {usual: "", **dict(zip(others, OTHER, strict=False))}
    told: dict[str, dict[str, list[str]]] = {}
    for each in rows:
        median, _, aim = each.ratio.partition(", aim ")
        least = aim.partition(":")[0]
        just = ", just missed" if "missed" in aim and float(least) == float(median.split()[0]) else ""
        missed = f" (aim {least}{just})" if "missed" in aim else ""
        cells = told.setdefault(each.what, {})
        cells.setdefault(each.cores, []).append(f"{each.beside} **{median.split()[0]}**{missed}{marks[each.processor]}")
    out = [SPEED_HEAD, "|---|---|---|"]
    for what, cells in told.items():
        several = [", ".join(found) for cores, found in cells.items() if cores != "1"]
        out.append(row(what, "; ".join(several), ", ".join(cells.get("1", []))))
    where = [f"{mark} Measured on an {name}, the others on an {usual}." for name, mark in marks.items() if mark]
    return [*out, "", *where, memories(rows)]
