"""Review of annotations in a browser.

python -m jaxvision.annotate review labelled/annotations.sqlite
"""

import argparse
import getpass
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxvision import commands
from jaxvision.annotate.review import server
from jaxvision.annotate.store import file_of


class Flags(NamedTuple):
    """The command line."""

    store: Path
    images: Path | None
    host: str
    port: int
    who: str
    traceback: bool


def parse(argv: Sequence[str] | None) -> Flags:
    """The flags."""
    parser = commands.new_parser(
        "annotate review",
        description="Review annotations in a browser, what is likely wrong first. Every action is stored at once.",
        epilog="Needs the extra review. On another machine: ssh -L 8017:localhost:8017 MACHINE, and open the address here.",
    )
    parser.add_argument("store", type=commands.expanded, metavar="STORE", help="file of the store, or its folder")
    parser.add_argument("--images", type=commands.expanded, metavar="DIR", help="folder of the images (the store's)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (127.0.0.1: this machine alone reaches it)"
    )
    parser.add_argument(
        "--port",
        type=commands.whole_number(0, 65_535),
        default=server.PORT,
        metavar="N",
        help="0 for any (%(default)s)",
    )
    parser.add_argument("--as", dest="who", type=_name, metavar="NAME", help="who reviews (the user's name)")
    flags = commands.flags_of(parser, argv)
    known = vars(flags)
    return Flags(**{**known, "who": known["who"] or _user()})


def _name(text: str) -> str:
    if not text.strip() or not text.isprintable() or len(text) > 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no name of 1 to 100 characters")
    return text.strip()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user without an entry, as in a container
        return "somebody"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    flags = parse(argv)
    return commands.status_of(lambda: serve(flags), flags.traceback)


def serve(flags: Flags) -> int:
    """Serves the page until Ctrl-C; returns the exit status."""

    def told(address: str) -> None:
        if not server.is_loopback(flags.host):
            print("jaxvision: other machines reach this server; what is sent is not encrypted", file=sys.stderr)
        print(f"Review as {flags.who}: {address}", flush=True)

    server.review(file_of(flags.store), images=flags.images, host=flags.host, port=flags.port, who=flags.who, told=told)
    return 0
