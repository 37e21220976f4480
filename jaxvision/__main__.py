"""The commands: `python -m jaxvision` lists them, `python -m jaxvision NAME ...` runs one, as does `jaxvision NAME ...`."""

import runpy
import sys
from collections.abc import Sequence

COMMANDS = {
    "main": "train an experiment, or resume it",
    "evaluate": "evaluate a checkpoint of a run",
    "predict": "predict classes or objects of images and videos",
    "robustness": "evaluate a run on corrupted images",
    "calibrate": "make the scores of a run probabilities, fitted to held-out data",
    "explain": "explain predictions: which pixels each comes from",
    "export": "write the model of a run as files that run without this package",
    "lighten": "make a run lighter: fold BatchNorm, or compute in 8-bit numbers",
    "augmented": "draw what an experiment's augmentation does to images",
    "annotate": "label folders of images, review, and train on the result",
    "formats.check": "check annotations of COCO, Pascal VOC or YOLO, and repair them",
    "data.proposals": "compute the regions that R-CNN and Fast R-CNN are given",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Lists the commands, or becomes the one that is named; returns the exit status: 2 for a name of none."""
    name, *rest = [*(sys.argv[1:] if argv is None else argv), ""]
    if name not in COMMANDS:
        asked = name in ("", "-h", "--help")
        print(
            listing() if asked else f"there is no command {name!r}\n{listing()}",
            file=sys.stdout if asked else sys.stderr,
        )
        return 0 if asked else 2
    sys.argv = [f"jaxvision.{name}", *rest[:-1]]
    runpy.run_module(f"jaxvision.{name}", run_name="__main__", alter_sys=True)
    return 0


def listing() -> str:
    """The commands, a line each."""
    lines = (f"  {name:<16}{text}" for name, text in COMMANDS.items())
    return "\n".join(["jaxvision COMMAND [--help], or python -m jaxvision.COMMAND:", *lines])


if __name__ == "__main__":
    sys.exit(main())
