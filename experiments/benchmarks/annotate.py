"""How memory and speed of `annotate label` grow with the number of images, beside decoding alone and the model alone.

    python experiments/benchmarks/annotate.py                    # all of it: minutes on two idle cores
    python experiments/benchmarks/annotate.py memory --counts 500 5000
    python experiments/benchmarks/annotate.py speed --counts 2000 20000
    python experiments/benchmarks/annotate.py parts --counts 1000

Images are generated JPEG files, the model is a small SSD with random weights; each measurement is a process of its own.
`memory`: the peak of each count of images, of `--side` pixels, with colours, so that pixels are kept. `speed`: images a
second over each count of small images. `parts`: in one process, images a second of reading and decoding alone (the same
threads), of the model alone (canvases in memory), and of labelling; the last is divided by the slower of the first two. On a
machine without an accelerator all three want the same cores: labelling can then reach no more than
1 / (1/decoding + 1/model), and its part of that stands beside it. `--width` and `--canvas` make the model slower or faster.
Prints a line of JSON each.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES = ("circle", "square", "triangle")
SCORE = 0.3
"""Five objects of random weights have it, and no more are found."""


def make(folder: Path, count: int, side: int) -> None:
    """Noisy JPEG images with a bright box; those that are there stay."""
    random = np.random.default_rng(0)
    grounds = [random.integers(0, 90, (side, side, 3), dtype=np.uint8) for _ in range(8)]
    for number in range(count):
        path = folder / f"{number // 1000:03}" / f"{number:06}.jpg"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = grounds[number % 8].copy()
            y, x = random.integers(0, side // 2, 2)
            pixels[y : y + side // 3, x : x + side // 3] = random.integers(120, 255, 3)
            Image.fromarray(pixels).save(path, quality=90)


def model(canvas: int, width: int, rows: int) -> Any:
    """A small SSD with random weights."""
    import jax
    import jax.numpy as jnp

    from jaxvision.data import loading, placement
    from jaxvision.data.decode import decode
    from jaxvision.nn import resnet
    from jaxvision.run import devices, records
    from jaxvision.run.prediction import Model
    from jaxvision.tasks.ssd import SSD, Extra, Features, paper, ssd

    backbone = resnet.Backbone(resnet.BasicBlock, (1, 1), width=width)
    features = Features(backbone, 0, (Extra(width, 2 * width),))
    defaults = paper((0.2, 0.4, 0.6, 0.9), ((2,), (2,), (2,)), (4, 8, 16))
    task = ssd(SSD(features, len(CLASSES), (4, 4, 4)), defaults, mean=127.5, std=64.0, max_detections=5)
    placer, mesh = placement.stretch(canvas), devices.device_mesh(1)
    like = loading.as_batch(loading.empty_rows(rows, (canvas, canvas), 3))
    spec = jax.eval_shape(lambda: like.replace(target=None))
    variables = jax.jit(task.init)(jax.random.key(0), jax.tree.map(jnp.asarray, like))
    place, jitted = devices.placer(mesh), jax.jit(task.predict)
    return Model(
        task=task,
        variables=variables,
        classes=CLASSES,
        preprocessing=lambda data: decode(data, placer).canvas,
        output=records.OBJECTS,
        spec=spec,
        mesh=mesh,
        step=None,
        weights=None,
        evaluations={},
        apply=lambda batch: jitted(variables, place(batch)),
    )


def labelled(folder: Path, flags: argparse.Namespace, network: Any, attributes: tuple[str, ...] = ()) -> dict[str, Any]:
    """Seconds of labelling a folder into a new store, from the first image on, and how many objects there are."""
    from jaxvision.annotate.labelling import label

    begun = 0.0

    def started(total: int):
        nonlocal begun
        begun = time.perf_counter()
        return lambda count: None

    with tempfile.TemporaryDirectory(dir=flags.folder) as place:
        told = label(folder, Path(place) / "out", {"ssd": network}, score=SCORE, attributes=attributes, started=started)
        seconds = time.perf_counter() - begun
    return {"images": told.images, "objects": sum(told.objects.values()), "seconds": round(seconds, 2)}


def chosen(folder: Path, count: int, place: Path) -> Path:
    """A folder of links to the first images of another."""
    place.mkdir(exist_ok=True)
    files = sorted(folder.rglob("*.jpg"))[:count]
    for file in files:
        (place / file.name).symlink_to(file)
    return place


def warmed(flags: argparse.Namespace, images: Path) -> Any:
    """The model, compiled, everything imported."""
    network = model(flags.canvas, flags.width, flags.rows)
    with tempfile.TemporaryDirectory(dir=flags.folder) as place:
        labelled(chosen(images, 2 * flags.rows, Path(place) / "few"), flags, network, ("colour",))
    return network


def one(flags: argparse.Namespace, count: int) -> dict[str, Any]:
    """What is measured in this process."""
    images = flags.folder / f"{flags.what}-{flags.side}-{count}"
    make(images, count, flags.side)
    network = warmed(flags, images)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if flags.what == "parts":
        return parts(flags, images, network)
    found = labelled(images, flags, network, ("colour",) if flags.what == "memory" else ())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    speed = round(found["images"] / found["seconds"], 1)
    return {**found, "images/s": speed, "peak_mb": peak // 1024, "before_mb": before // 1024}


def parts(flags: argparse.Namespace, images: Path, network: Any) -> dict[str, Any]:
    """Images a second of decoding alone, the model alone, and labelling."""
    from jaxvision.annotate import reading
    from jaxvision.annotate.labeller import labellers
    from jaxvision.annotate.listing import listing

    names = listing(images).names
    (labeller,), _ = labellers({"ssd": network}, score=SCORE)
    begun = time.perf_counter()
    read = list(reading.images(images, names, lambda pixels: [labeller.canvases(pixels)], {}))
    decoding = len(names) / (time.perf_counter() - begun)
    canvases = [each.canvases[0] for each in read]
    begun = time.perf_counter()
    for _ in labeller.find(canvases):
        pass
    alone = len(names) / (time.perf_counter() - begun)
    found = labelled(images, flags, network)
    speed = found["images"] / found["seconds"]
    result = {"decoding/s": decoding, "model/s": alone, "labelling/s": speed}
    return {
        **{key: round(value, 1) for key, value in result.items()},
        "of_the_slower": round(speed / min(decoding, alone), 3),
        "of_both_on_the_same_cores": round(speed * (1 / decoding + 1 / alone), 3),
        "objects": found["objects"],
    }


def processes(flags: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measures each count in a process of its own."""
    sides = {"memory": flags.side or 640, "speed": flags.side or 96, "parts": flags.side or 320}
    counts = {"memory": (500, 5_000), "speed": (2_000, 20_000), "parts": (1_000,)}
    for what in ("memory", "speed", "parts") if flags.what == "all" else (flags.what,):
        for count in flags.counts or counts[what]:
            options = {"canvas": flags.canvas, "width": flags.width, "rows": flags.rows, "side": sides[what]}
            command = [sys.executable, __file__, what, f"--one={count}", f"--folder={flags.folder}"]
            command += [f"--{name}={value}" for name, value in options.items()]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr)
            yield {"what": what, "count": count, **options, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    """Measures, or starts the processes that do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("all", "memory", "speed", "parts"), default="all")
    parser.add_argument("--counts", type=int, nargs="+", help="numbers of images")
    parser.add_argument("--side", type=int, default=0, help="side of the images in pixels (640, 96, 320)")
    parser.add_argument("--canvas", type=int, default=64, help="side of what the model sees (64)")
    parser.add_argument("--width", type=int, default=8, help="channels of its first layer (8)")
    parser.add_argument("--rows", type=int, default=8, help="images of a batch (8)")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "jaxvision-annotate")
    parser.add_argument("--one", type=int, default=0, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    flags.folder.mkdir(parents=True, exist_ok=True)
    if flags.one:
        print(json.dumps(one(flags, flags.one)))
        return
    for line in processes(flags):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
