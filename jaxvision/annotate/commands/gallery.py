"""Gallery of a store: static HTML pages of small pictures with their objects.

python -m jaxvision.annotate gallery labelled/annotations.sqlite --output=gallery.html
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxvision import commands
from jaxvision.annotate.gallery import PER_PAGE, SIDE, gallery
from jaxvision.annotate.previews import images_of
from jaxvision.annotate.store import Store, file_of
from jaxvision.errors import amount


class Flags(NamedTuple):
    """The command line."""

    store: Path
    output: Path
    images: Path | None
    per_page: int
    size: int
    traceback: bool


def parse(argv: Sequence[str] | None) -> Flags:
    """The flags."""
    parser = commands.new_parser(
        "annotate gallery",
        description="Draw the images of a store with their objects as HTML pages that need nothing else.",
    )
    parser.add_argument("store", type=commands.expanded, metavar="STORE", help="file of the store, or its folder")
    parser.add_argument(
        "--output",
        required=True,
        type=commands.output_ending(".html", ".htm", any_case=True),
        metavar="FILE",
        help="to write, or replace: .html; further pages beside it",
    )
    parser.add_argument("--images", type=commands.expanded, metavar="DIR", help="folder of the images (the store's)")
    parser.add_argument(
        "--per-page", type=commands.whole_number(1, 1_000), default=PER_PAGE, metavar="N", help="images (%(default)s)"
    )
    parser.add_argument(
        "--size",
        type=commands.whole_number(64, 1_024),
        default=SIDE,
        metavar="N",
        help="pixels of a picture's longer side (%(default)s)",
    )
    flags = commands.flags_of(parser, argv)
    return Flags(**vars(flags))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = parse(argv)
    return commands.status_of(lambda: write(flags), flags.traceback)


def write(flags: Flags) -> int:
    """Writes the pages; returns the exit status, 1 where an image can't be shown."""
    with Store(file_of(flags.store), readonly=True) as store:
        images = images_of(store, flags.images)
        found = gallery(store, images, flags.output, per_page=flags.per_page, side=flags.size)
    for name, why in found.failures.items():
        print(f"jaxvision: {commands.one_line(f'{name}: {why}')}", file=sys.stderr)
    print(f"{found.pages[0]}: {amount(found.images, 'image')} on {amount(len(found.pages), 'page')}")
    return 1 if found.failures else 0
