"""Writer of a store that may be killed at any time and goes on where it stopped; forked for each line of its input.

`python store_writer.py` reads paths, each followed by an empty line. For a path it forks a process that writes the same 96
records there, with what a person does to them, and prints its id; for the empty line it waits for the end of that process,
and prints its status. Not a test itself.
"""

import os
import sys
from pathlib import Path

from jaxvision.annotate.records import Annotation, ImageRecord, Source
from jaxvision.annotate.store import Change, Store

IMAGES, BATCH = 96, 8
ME = "human:me"


def record(number: int, objects: int = 40) -> ImageRecord:
    """Findings in an image; so many objects that a transaction is many pages."""
    found = [
        Annotation(
            0, f"class {k % 3}", (k, number, k + 5.5, number + 9.25), score=k / 40, sources=(Source("ssd", "c0"),)
        )
        for k in range(objects)
    ]
    return ImageRecord(f"{number:03d}.jpg", f"{number:064x}", (480, 640), tuple(found))


def write(path: Path) -> None:
    """Writes all that is not there yet: findings in batches, then three steps of a person an image, each once."""
    with Store(path, create=True) as store:
        for first in range(0, IMAGES, BATCH):
            with store.together():
                for number in range(first, first + BATCH):
                    if store.get(f"{number:03d}.jpg") is None:
                        store.put(record(number), who="ssd")
            for number in range(first, first + BATCH):
                name = f"{number:03d}.jpg"
                if store.get(name).version == 1:
                    store.apply(name, Change("accept", 1), who=ME, version=1)
                if store.get(name).version == 2:
                    store.apply(name, Change("rename", 1, "cup"), who=ME, version=2)
                if store.get(name).version == 3:
                    store.undo(ME)


def main() -> None:
    """Forks a writer for each path."""
    while line := sys.stdin.readline():
        child = os.fork()
        if child == 0:
            write(Path(line.strip()))
            os._exit(0)
        print(child, flush=True)
        sys.stdin.readline()
        print(os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    main()
