"""Labels a folder and is killed, again and again, then fills its disk. Not a test itself.

python killed_labelling.py FOLDER KILLS labels scenes into FOLDER/whole without a break; into FOLDER/killed, killed so many
times at random points; and into FOLDER/full, where files may not grow beyond some size at first. It prints how many images
each killed process had stored, and what the full disk was told as. Each process is a fork of one that has imported
everything and not used JAX yet.
"""

import os
import random
import resource
import signal
import sys
import time
import warnings
from pathlib import Path

from labelled_scenes import detector, scenes

from jaxvision.annotate import streaming
from jaxvision.annotate.labelling import label
from jaxvision.annotate.store import Store
from jaxvision.errors import DataError, WorkdirError

IMAGES = 200
streaming.SECONDS = 0.02  # many transactions, for a kill to meet one
LARGEST = 100_000
"""Bytes of a file on the full disk: less than the store has in the end."""


def labelled(folder: Path, output: str) -> None:
    """Labels the scenes; adds a byte to the file `done` with each image."""

    def started(total):
        file = os.open(folder / "done", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        return lambda count: os.write(file, b"." * count)

    label(folder / "images", folder / output, {"bright": detector()}, started=started)


def forked(work) -> int:
    """A process that does some work; its number."""
    number = os.fork()
    if number == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return number


def ended(number: int) -> bool:
    """Whether a process ended well; waits for it."""
    return os.waitpid(number, 0)[1] == 0


def killed(folder: Path, images: int, seconds: float) -> int:
    """Kills a process that labels, so long after it has done so many images; how many are stored then."""
    (folder / "done").write_bytes(b"")
    number = forked(lambda: labelled(folder, "killed"))
    deadline = time.monotonic() + 60
    while (folder / "done").stat().st_size < images and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(seconds)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    try:
        with Store(folder / "killed" / "annotations.sqlite") as store:
            return len(store.names())
    except DataError:
        return 0


def on_a_full_disk(folder: Path) -> None:
    """Labels where no file may grow beyond some size; prints what it is told as."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST, resource.RLIM_INFINITY))
    try:
        labelled(folder, "full")
    except WorkdirError as error:
        print(error, flush=True)


def main(folder: Path, kills: int) -> None:
    """Labels into three folders."""
    warnings.simplefilter("ignore")
    scenes(folder / "images", range(IMAGES))
    assert ended(forked(lambda: labelled(folder, "whole")))
    points, stored = random.Random(0), [0]
    for _ in range(kills):
        more = points.randint(0, 2 * IMAGES // kills - 1)
        stored.append(killed(folder, min(stored[-1] + more, IMAGES), points.uniform(0, 0.02)))
    print(*stored[1:], flush=True)
    assert ended(forked(lambda: labelled(folder, "killed")))
    assert ended(forked(lambda: on_a_full_disk(folder)))
    assert ended(forked(lambda: labelled(folder, "full")))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
