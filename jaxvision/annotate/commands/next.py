"""Images whose review teaches most: where many errors are expected, spread over images that are unlike each other.

python -m jaxvision.annotate next output/annotations.sqlite --count=40 > next.txt

A line an image, its name and the errors that are expected among its findings, the first first. Images that a person has
looked at all of are left out, and so are those that look like them. What images look like is kept beside the store, in
NAME.descriptors.npz: later calls decode new images alone.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxvision import commands


class Flags(NamedTuple):
    """The command line."""

    store: Path
    count: int
    images: Path | None
    traceback: bool


def parse(argv: Sequence[str] | None) -> Flags:
    """The flags."""
    parser = commands.new_parser(
        "annotate next",
        "Choose the images to review next.",
        epilog="A line an image, the first first: its name, a tab, and how many errors are expected among its findings. "
        "The order also weighs how unlike an image is to those before it, and to those that were reviewed.",
    )
    parser.add_argument("store", type=commands.expanded, metavar="STORE", help="the store, or the folder that has it")
    parser.add_argument("--count", type=commands.positive, default=40, metavar="N", help="how many (40)")
    parser.add_argument(
        "--images", type=commands.expanded, metavar="DIR", help="folder of the images (as the store has it)"
    )
    return Flags(**vars(commands.flags_of(parser, argv, intermixed=True)))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = parse(argv)
    return commands.status_of(lambda: run(flags), flags.traceback)


def run(flags: Flags) -> int:
    """Prints the images; returns the exit status, 1 where one could not be read."""
    from jaxvision.annotate import choosing, descriptors
    from jaxvision.annotate.store import Store, file_of
    from jaxvision.errors import ConfigError, printable

    failed: list[str] = []

    def complain(text: str) -> None:
        failed.append(text)
        print(commands.one_line(f"jaxvision: {text}"), file=sys.stderr)

    path = file_of(flags.store)
    with Store(path, readonly=True) as store:
        folder = flags.images or choosing.folder_of(store.settings)
        if folder is None:
            raise ConfigError(f"{path} does not say where its images are; --images=DIR does")
        kept = descriptors.beside(path)
        for each in choosing.next_images(store.records(), folder, flags.count, complain, kept):
            print(printable(f"{each.name}\t{each.errors:.2f}"))
    return 1 if failed else 0
