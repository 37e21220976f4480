"""Explanations of image files as files: a picture and arrays for each, and a page that shows all of them."""

import json
from collections.abc import Iterator, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxvision.data import media
from jaxvision.errors import DataError, amount, write_atomically
from jaxvision.run import prediction
from jaxvision.run.pictures import name_of
from jaxvision.run.prediction import Model, batch_of, with_rows
from jaxvision.run.records import Where
from jaxvision.trust.explain import judging
from jaxvision.trust.explain.explaining import Asked, Explanation, explain
from jaxvision.trust.explain.overlay import SIDE, overlay
from jaxvision.types import Canvas


class Written(NamedTuple):
    """An image's files, by name, and what the page says of it."""

    file: str
    original: str
    picture: str
    arrays: str
    lines: tuple[str, ...]
    metrics: dict[str, float]
    """What the map is worth, by the names that `MEANINGS` explains."""


MEANINGS = {
    "deletion": "mean score while hiding",
    "insertion": "mean score while showing",
    "inside": "part of the energy in the box",
    "points": "part of the maps with the highest value in the box",
    "rank_correlation": "rank correlation with randomised parameters",
}
"""What is said of each metric of several images."""


def explanations(
    model: Model, paths: Sequence[Path], method: str, asked: Asked, *, check: bool
) -> Iterator[tuple[Where, Canvas, Explanation | judging.NoAttributionError]]:
    """Each image with its explanation, or why it has none, in order.

    Raises:
      DataError: for an image that can't be read; the message names it.
    """
    found = media.pictures(media.files(paths), 1, False)
    spec = with_rows(model.spec, 1)
    for where, canvas in prediction.readable(media.decoded(found, model.preprocessing, threads=1), _refuse):
        batch = jax.device_put(batch_of([canvas], spec, 0))
        placed = asked if asked.box is None else asked._replace(box=on_canvas(asked.box, canvas))
        try:
            each = explain(model.task, model.variables, batch, model.classes, method, placed, check=check)
        except judging.NoAttributionError as error:
            each = error
        yield where, canvas, each


def _refuse(file: str, error: str) -> None:
    raise DataError(f"{file}: {error}")


def on_canvas(box: Sequence[float], canvas: Canvas) -> tuple[float, float, float, float]:
    """A box in pixels of the image file, in pixels of the canvas."""
    scale, shift = canvas.to_file()
    x0, y0, x1, y1 = (float(x) for x in (np.asarray(box) - [*shift, *shift]) / [*scale, *scale])
    return x0, y0, x1, y1


def write(folder: Path, number: int, where: Where, canvas: Canvas, found: Explanation, method: str) -> Written:
    """Writes the picture, the image beside it, and the arrays; each whole or not at all. The folder is made."""
    folder.mkdir(exist_ok=True)
    name, (height, width) = name_of(number, where), canvas.size
    image = canvas.image[:height, :width]
    box = None if found.subject.chosen is None else found.subject.chosen.box
    factor = max(1, -(-SIDE // min(height, width)))
    plain = Image.fromarray(image if image.shape[-1] == 3 else np.repeat(image, 3, -1))
    plain = plain.resize((width * factor, height * factor), Image.Resampling.NEAREST)
    files = f"{name}_image.png", f"{name}_{method}.png", f"{name}_{method}.npz"
    write_atomically(folder / files[0], _png(plain))
    write_atomically(folder / files[1], _png(overlay(image, found.map, box)))
    write_atomically(folder / files[2], _npz(canvas, found))
    return Written(where[0], *files, lines(found, method), _metrics(found))


def _metrics(found: Explanation) -> dict[str, float]:
    known = {"deletion": found.deletion.area, "insertion": found.insertion.area}
    known |= {"inside": found.inside, "points": found.points, "rank_correlation": found.correlation}
    return {name: float(value) for name, value in known.items() if value is not None}


def summary(written: Sequence[Written]) -> tuple[str, ...]:
    """The mean of each metric over the images, with its standard deviation; nothing of a single image."""
    if len(written) < 2:
        return ()
    columns = {name: np.array([each.metrics[name] for each in written]) for name in written[0].metrics}
    said = []
    for name, column in columns.items():
        known = column[~np.isnan(column)]
        constant = "" if len(known) == len(column) else f", of {len(known)}; the map is constant in the others"
        if len(known):
            said.append(f"{MEANINGS[name]} {known.mean():.3f} ± {known.std():.3f}{constant}")
    return (f"mean ± standard deviation of {amount(len(written), 'image')}: {'; '.join(said)}",)


def _png(picture: Image.Image) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def _npz(canvas: Canvas, found: Explanation) -> bytes:
    """The map, of the canvas's content, and all figures; `window` is the part of the file that it covers."""
    height, width = canvas.original_size
    arrays = {
        "map": found.map,
        "window": canvas.window or (0, 0, width, height),
        "label": found.subject.label,
        "score": found.score,
    }
    for name in ("deletion", "insertion"):
        arrays[name] = np.stack(getattr(found, name))
    if (chosen := found.subject.chosen) is not None:
        arrays |= {"box": canvas.in_file(jnp.asarray(chosen.box)[None])[0], "index": chosen.index}
    if found.correlation is not None:
        arrays["rank_correlation"] = found.correlation
    np.savez_compressed(buffer := BytesIO(), **arrays)
    return buffer.getvalue()


def lines(found: Explanation, method: str) -> tuple[str, ...]:
    """What is explained, and what the map is worth."""
    said = [
        f"{found.subject.name}, score {found.score:.3f}",
        f"mean score while hiding {found.deletion.area:.3f} (low is good), while showing {found.insertion.area:.3f}",
    ]
    if found.inside is not None:
        peak = "inside" if found.points else "outside"
        said.append(f"{100 * found.inside:.0f} % of the map's energy in the box, its highest value {peak}")
    if found.correlation is not None:
        said.append(judging.verdict(method, found.correlation))
    return tuple(said)


def write_page(folder: Path, written: Sequence[Written], method: str, model: str) -> Path:
    """The page of all images, `index.html`, which names their files."""
    rows = "".join(
        f"<section><h2>{escape(each.file)}</h2><img src={json.dumps(escape(each.original))} alt=image>"
        f"<img src={json.dumps(escape(each.picture))} alt=map><p>{'<br>'.join(map(escape, each.lines))}</p></section>\n"
        for each in written
    )
    whole = "".join(f"<p>{escape(each)}</p>\n" for each in summary(written))
    title = f"{escape(method)} of {amount(len(written), 'image')}, {escape(model)}"
    style = "body{font:15px sans-serif;margin:2em}img{max-height:420px;max-width:48%;margin:2px}h2{font-size:1em}"
    page = f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{style}</style><h1>{title}</h1>\n{whole}{rows}"
    write_atomically(folder / "index.html", page)
    return folder / "index.html"
