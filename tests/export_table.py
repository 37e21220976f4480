"""The table of what can be exported in which format, from trials of every network and task, small.

cd tests && python export_table.py [--formats=stablehlo,onnx] [NAME ...]    trials, a line of JSON each
cd tests && python export_table.py --write                                  all of them, into export_table.md
cd tests && python export_table.py --write=ROWS                             the same from those lines, of several calls; what
                                                                            none of them has is "not tried"

It runs in a process of its own, since shape annotations, which tests check, know no batches of any size.
"""

import argparse
import json
import tempfile
import warnings
from pathlib import Path

from exports import NAMES, made, trial

from jaxvision.errors import ExportError, write_atomically
from jaxvision.trust.export.formats import FORMATS

FILE = Path(__file__).with_suffix(".md")
HEAD = """# What can be exported

Written by `cd tests && python export_table.py --write`: every network and task, small, with random weights, is exported, its
file run in a process without the package, and compared with what the model predicts for two images. A figure is the
largest difference of any output, "equal" is bit for bit; "any" is a batch of any size, 1 a batch of one, which the loader
repeats. What does not convert is named with its operator and where in the source it is. Versions: {versions}.

"""
WIDEST = 160
"""Characters of a reason in the table."""


def tried(name, formats):
    """What came of the trials of one network or task."""
    program = made(name)
    for format in formats:
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = trial(program, format, Path(folder))
            except ExportError as error:
                yield {"name": name, "format": format, "error": str(error)}
            else:
                said = {key: found[key] for key in ("batch", "versions")}
                yield {"name": name, "format": format, "difference": max(found["differences"].values()), **said}


def cell(found):
    """A trial as the table has it."""
    if found is None:
        return "not tried"
    if "error" in found:
        reason = found["error"].replace("|", "/")
        return reason if len(reason) <= WIDEST else f"{reason[:WIDEST]} ..."
    apart = "equal" if not found["difference"] else f"{found['difference']:.0e}"
    return f"{apart}, {found['batch']}"


def table(rows):
    """The table, a row a network or task and a column a format."""
    lines = [("network or task", *FORMATS), ("---",) * (1 + len(FORMATS))]
    lines += [(name, *(cell(rows.get((name, format))) for format in FORMATS)) for name in NAMES]
    versions = dict(pair for each in rows.values() for pair in each.get("versions", {}).items())
    head = HEAD.format(versions=", ".join(f"{name} {version}" for name, version in sorted(versions.items())))
    return head + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--write", nargs="?", const="", metavar="ROWS")
    parser.add_argument("names", nargs="*", default=NAMES)
    flags = parser.parse_args()
    warnings.simplefilter("ignore")
    if flags.write:
        lines = map(json.loads, Path(flags.write).read_text().splitlines())
    else:
        lines = (found for name in flags.names for found in tried(name, flags.formats.split(",")))
    rows = {}
    for found in lines:
        rows[found["name"], found["format"]] = found
        if not flags.write:
            print(json.dumps(found), flush=True)
    if flags.write is not None:
        write_atomically(FILE, table(rows))


if __name__ == "__main__":
    main()
