"""Labels a folder and is killed, again and again, then fills its disk. Not a test itself.

python killed_labelling.py FOLDER KILLS labels scenes into FOLDER/whole without a break; into FOLDER/killed, killed so many
times at random points; and into FOLDER/full, where files may not grow beyond some size at first. It prints how many images each
killed process had stored, and what the full disk was told as. Each process is a fork of one that has imported everything and
not used JAX yet.
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

IMAGES = 160
SLOWNESS = 0.01
"""Seconds that are waited after each image, so that a kill meets a run at work."""
streaming.SECONDS = 0.02  # many transactions, for a kill to meet one
LARGEST = 100_000
"""Bytes of a file on the full disk: less than the store has in the end."""


def labelled(folder: Path, output: str) -> None:
    """Labels the scenes; makes the file `begun` with the first image, so that kills come after it."""

    def started(total):
        def progress(count):
            (folder / "begun").touch()
            time.sleep(SLOWNESS if output == "killed" else 0)

        return progress

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


def killed(folder: Path, after: float) -> int:
    """Kills a process that labels so many seconds after its first image; how many images are stored then."""
    (folder / "begun").unlink(missing_ok=True)
    number = forked(lambda: labelled(folder, "killed"))
    deadline = time.monotonic() + 60
    while not (folder / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(after)
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
    points = random.Random(0)
    longest = 2 * IMAGES * SLOWNESS / kills
    print(*(killed(folder, points.uniform(0, longest)) for _ in range(kills)), flush=True)
    assert ended(forked(lambda: labelled(folder, "killed")))
    assert ended(forked(lambda: on_a_full_disk(folder)))
    assert ended(forked(lambda: labelled(folder, "full")))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
