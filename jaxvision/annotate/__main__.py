"""Annotation of folders of images: `python -m jaxvision.annotate` lists its subcommands, with a name it runs one."""

import importlib
import sys
from collections.abc import Sequence

from jaxvision import commands
from jaxvision.errors import nearest

SUBCOMMANDS = {
    "label": "label the images of a folder by one or more models",
    "export": "write what a store holds as COCO, VOC, YOLO, labelme, CVAT or Label Studio",
    "convert": "convert annotations from one format into another",
    "calibrate": "calibrate probabilities by a small checked set, and promise a precision",
    "doubts": "rank the objects of an annotated dataset by how likely they are wrong",
    "review": "review annotations in a browser",
    "gallery": "draw a store as one page of pictures",
    "next": "choose the images whose review teaches most",
}
"""Names and what they do; `annotate.commands.NAME` has a `main(argv)`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand; returns the exit status."""
    name, *rest = [*(sys.argv[1:] if argv is None else argv), ""]
    if name not in SUBCOMMANDS:
        asked = name in ("", "-h", "--help")
        text = listing() if asked else f"there is no subcommand {name!r}{nearest(name, tuple(SUBCOMMANDS))}"
        print(text, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    module = importlib.import_module(f"jaxvision.annotate.commands.{name}")
    return module.main(rest[:-1])


def listing() -> str:
    """The subcommands, a line each."""
    lines = (f"  {name:<12}{text}" for name, text in SUBCOMMANDS.items())
    return "\n".join(["python -m jaxvision.annotate SUBCOMMAND [--help]:", *lines])


if __name__ == "__main__":
    commands.enter(main)
