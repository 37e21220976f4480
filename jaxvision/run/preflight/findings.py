"""What a check finds: lines for a report, and problems, of which none ends the search for others."""

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from jaxvision.errors import amount

LONGEST = 600
"""Letters of a problem: a compiler's message can have thousands."""


class Findings(NamedTuple):
    """What a check reports."""

    report: str
    """All of it, the problems at the end."""
    problems: list[str]


class Finder:
    """Collects what a check finds."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.problems: list[str] = []
        self._said: set[str] = set()

    def tell(self, *lines: str) -> None:
        """Adds lines to the report."""
        self.lines += lines

    def problem(self, what: str, text: str) -> None:
        """Adds a problem, unless one of this text is there already."""
        if text not in self._said:
            self._said.add(text)
            self.problems.append(f"{what}: {text}")

    @contextmanager
    def part(self, what: str) -> Iterator[None]:
        """A part of the check; what it raises is a problem, and ends this part alone."""
        try:
            yield
        except Exception as error:
            self.problem(what, said(error))

    def findings(self) -> Findings:
        """The whole report, and the problems."""
        count = len(self.problems)
        title = f"{amount(count, 'problem')}:" if count else "no problem found"
        numbered = [f"  {number}. {text}" for number, text in enumerate(self.problems, 1)]
        return Findings("\n".join([*self.lines, "", title, *numbered]) + "\n", self.problems)


def said(error: Exception) -> str:
    """The error in one line. Of a class that is not meant for users, its name and where in our code it arose too."""
    text = " ".join(str(error).split())
    text = text if len(text) <= LONGEST else text[:LONGEST] + " ..."
    if isinstance(error, ValueError | OSError):
        return text
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{where}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns, the first one flush left, the others flush right; the first row is the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
