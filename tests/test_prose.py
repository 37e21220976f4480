"""Docstrings begin with the thing that they name, and names that have been retired stay so."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import jaxvision

ROOT = Path(jaxvision.__file__).parent.parent
FILES = sorted(
    str(path.relative_to(ROOT))
    for room in ("jaxvision", "experiments", "launch")
    for path in (ROOT / room).rglob("*.py")
)
HIDDEN_SUBJECT = re.compile(r"(Of|Likewise|So many|Up to so many|As|The same|For|With|From(?!.* to ))\b")
"""Beginnings of docstrings that leave out what is meant; "From files to batches" names a way."""
BARE_LIKEWISE = re.compile(r"^\s*\w+(, \w+)*: likewise\b", re.MULTILINE | re.IGNORECASE)
OLD_WORDS = (
    *("passport", "rebuilt", "wishes", "Wishes", "BoardError", "DataProblem", "told_as"),
    *(
        "decision_figures",
        "LEAST_OVERLAP",
        "LEAST_SHARE",
        "as_they_fit",
        "Drawn",
        "drawn shapes",
        "as figures",
        "FIGURES",
    ),
    *("mean_best_overlap", "suppresses", "suppressions", "(?<!maximum )suppression", "overlapped"),
    *("processes.share", "Share", "shares of", "a share", "told otherwise", "told by"),
)
"""Patterns of retired words and identifiers, whole words only."""
VAGUE_NAMES = ("kinds", "mine", "overlaps", "own", "share", "shares", "some", "there")
"""Names that don't say what a variable holds."""


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of every string that stands as a statement: of modules, classes, functions, attributes, constants."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value.strip()


def variables(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of everything that is assigned to, and of every argument."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg


def faults(source: str) -> list[str]:
    """What is wrong with the prose of a module, each with its line."""
    found, tree = [], ast.parse(source)
    for line, text in docstrings(tree):
        if HIDDEN_SUBJECT.match(text):
            found.append(f"{line}: begins with {text[:40]!r}, not with the thing it names")
        if entry := BARE_LIKEWISE.search(text):
            found.append(f"{line}: {entry.group().strip()!r} says nothing about the argument")
    found += [f"{line}: {name!r} does not say what it holds" for line, name in variables(tree) if name in VAGUE_NAMES]
    for line, text in enumerate(source.splitlines(), 1):
        found += [f"{line}: {old!r} is a retired name" for old in OLD_WORDS if re.search(rf"\b{old}\b", text)]
    return found


@pytest.mark.parametrize("file", FILES)
def test_the_prose_of_every_module(file):
    assert not faults((ROOT / file).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "source",
    [
        '"""Of the softmax, in nats."""',
        '"""With zeros below."""',
        'MOST = 3\n"""Up to so many are read."""',
        'YOLO = 3\n"""For COCO at 416 px."""',
        '"""From weights of COCO."""',
        'MOST = 3\n"""So many of each."""',
        'def f():\n    """As `g`."""',
        'class A:\n    x: int\n    """The same in float32."""',
        'def f(a, b):\n    """Sum.\n\n    Args:\n      a: a number.\n      b: likewise.\n    """',
        "passport = 1",
        '"""Fractions, no shares of the content."""',
        "# after suppression",
        "for own in (1, 2):\n    pass",
        "lambda mine: 1",
    ],
)
def test_each_fault_is_found(source):
    assert len(faults(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        '"""Cross-entropy of the softmax, in nats."""',
        '"""Offset of a box."""',
        '"""From files to batches."""',
        '"""Forward pass."""',
        "passports = 1",
        '"""Non-maximum suppression."""',
        "owner = 1",
    ],
)
def test_what_is_right_is_not_a_fault(source):
    assert not faults(source)
