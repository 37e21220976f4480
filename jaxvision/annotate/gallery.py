"""Gallery: a store as static pages of small pictures with their objects, to look at or to send; they need nothing else."""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from jaxvision.annotate.drawing import closed, colour, outlines
from jaxvision.annotate.previews import Preview, file_of, preview
from jaxvision.annotate.records import Annotation, ImageRecord
from jaxvision.annotate.store import Store
from jaxvision.errors import ConfigError, amount, printable, replacing
from jaxvision.formats.image_file import BadImage, read
from jaxvision.formats.labelled import Segmentation
from jaxvision.masks.runs import Runs

PER_PAGE = 200
"""Images of a page."""
SIDE = 320
"""Pixels of the longer side of a picture."""
MOST_OBJECTS = 100
"""Objects of an image that are drawn; of more, those with the highest probabilities."""
LINE, NEAR = 11, 50
"""Pixels between two lines of text, and from the start of one to that of another that it would meet."""
MOST_CORNERS = 120
"""Corners of a polygon that are drawn; of more, every second, third, ... one."""


class Summary(NamedTuple):
    """What was written."""

    pages: list[Path]
    images: int
    failures: dict[str, str]
    """Names of the images that can't be shown, and why."""


def gallery(store: Store, images: Path, output: Path, *, per_page: int = PER_PAGE, side: int = SIDE) -> Summary:
    """Writes all images of a store with their objects, in order of name, into HTML files, in memory of one image.

    Args:
      store: whose records are shown; rejected objects are left out.
      images: folder of the images.
      output: HTML file of the first page; `gallery.html` is followed by `gallery-2.html`, ... beside it.
      per_page: images of a page.
      side: pixels of the longer side of a picture.

    Raises:
      ConfigError: for no image.
    """
    count = len(store.names())
    if not count:
        raise ConfigError(f"{store.path}: the store has no images, so that a gallery of it would be empty")
    numbers: dict[str, int] = {}
    for record in store.records():  # colours are those of all pages
        for each in record.objects:
            numbers.setdefault(each.label, len(numbers))
    numbers = {label: number for number, label in enumerate(sorted(numbers))}
    pages = [page_path(output, number) for number in range(-(-count // per_page))]
    records, summary = store.records(), Summary(pages, count, {})
    for number, path in enumerate(pages):
        pieces = _page(islice(records, per_page), images, side, number, summary, numbers)
        with replacing(path) as partial, partial.open("w", encoding="utf-8", errors="replace") as file:
            file.writelines(pieces)
    return summary


def page_path(output: Path, number: int) -> Path:
    """The file of a page, counted from 0."""
    return output if number == 0 else output.with_name(f"{output.stem}-{number + 1}{output.suffix}")


def _page(
    records: Iterable[ImageRecord], images: Path, side: int, number: int, summary: Summary, numbers: dict[str, int]
) -> Iterator[str]:
    """The pieces of a page."""
    folder = files("jaxvision.annotate.review") / "static"
    style, script = ((folder / f"gallery.{suffix}").read_text("utf-8") for suffix in ("css", "js"))
    allowed = [
        f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in (style, script)
    ]
    policy = f"default-src 'none'; img-src data:; style-src {allowed[0]}; script-src {allowed[1]}; base-uri 'none'"
    yield f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Gallery</title><style>{style}</style></head><body>
<header><h1>{amount(summary.images, "image")}</h1><form>
<label>Class <select id="label"><option value="">any</option></select></label>
<label>Score or probability from <input id="low" type="number" min="0" max="1" step="0.05" value="0"></label>
<label>to <input id="high" type="number" min="0" max="1" step="0.05" value="1"></label>
<label><input id="alone" type="checkbox"> only images with such an object</label></form><p id="count"></p>
{_links(summary.pages, number)}</header><main>
"""
    for record in records:
        yield _figure(record, images, side, summary, numbers)
    yield f"</main><footer>{_links(summary.pages, number)}</footer><script>{script}</script></body></html>\n"


def _links(pages: list[Path], number: int) -> str:
    if len(pages) == 1:
        return ""
    links = [
        f'<a href="{escape(quote(page.name))}"{" aria-current=page" if k == number else ""}>{k + 1}</a>'
        for k, page in enumerate(pages)
    ]
    return f"<nav>Page {' '.join(links)}</nav>"


def _figure(record: ImageRecord, images: Path, side: int, summary: Summary, numbers: dict[str, int]) -> str:
    name = escape(printable(record.name))
    try:
        shown = preview(read(file_of(images, record.name)), side, lossless=0)
    except BadImage as error:
        summary.failures[record.name] = str(error)
        return f'<figure class="failed"><p>{escape(str(error))}</p><figcaption title="{name}">{name}</figcaption></figure>\n'
    height, width = (part * _enlarged(shown.size, side) for part in shown.size)
    objects = sorted((each for each in record.objects if each.verdict != "rejected"), key=_sure, reverse=True)
    scale = max(height, width) / max(*record.size, 1)
    places: list[tuple[float, float]] = []
    pieces = "".join(_object(each, scale, numbers, places) for each in objects[:MOST_OBJECTS])
    more = f"<small>{len(objects) - MOST_OBJECTS:,} more</small>" if len(objects) > MOST_OBJECTS else ""
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f'<image href="{_inline(shown)}" width="{width}" height="{height}"/>{pieces}</svg>'
        f'<figcaption title="{name}">{name}</figcaption>{more}</figure>\n'
    )


def _enlarged(size: tuple[int, int], side: int) -> int:
    """How many times a small picture is enlarged, so that the names of objects fit it."""
    return max(1, side // max(size))


def _inline(shown: Preview) -> str:
    return f"data:{shown.type};base64,{base64.b64encode(shown.data).decode()}"


def _object(each: Annotation, scale: float, numbers: dict[str, int], places: list[tuple[float, float]]) -> str:
    x0, y0, x1, y1 = (side * scale for side in each.box)
    label, mask = escape(printable(each.label)), each.segmentation
    x, y = _free((max(x0, 0) + 3, max(y0, 0) + LINE), places)
    sure = "" if each.human or each.score is None else f" {100 * _sure(each):.0f} %"
    rect = f'x="{x0:.1f}" y="{y0:.1f}" width="{max(x1 - x0, 0):.1f}" height="{max(y1 - y0, 0):.1f}"'
    return (
        f'<g data-label="{label}" data-sure="{_sure(each):.4f}" color="{colour(numbers[each.label])}">'
        f"{'' if mask is None else _filled(mask, scale)}"
        f'<rect class="halo" {rect}/><rect {rect}><title>{escape(printable(_told(each)))}</title></rect>'
        f'<text x="{x:.1f}" y="{y:.1f}">{label}{sure}</text></g>'
    )


def _free(place: tuple[float, float], places: list[tuple[float, float]]) -> tuple[float, float]:
    """The place, or the first below it that no other text is near; it is added to the places."""
    x, y = place
    while any(abs(x - other) < NEAR and abs(y - line) < LINE for other, line in places):
        y += LINE
    places.append((x, y))
    return x, y


def _told(each: Annotation) -> str:
    """What is known of an object."""
    known = ", ".join(f"{key}: {_text(value)}" for key, value in each.attributes.items())
    return f"{each.label} {'by a person' if each.decided else f'{100 * _sure(each):.0f} %'}{f' ({known})' if known else ''}"


def _filled(mask: Segmentation, scale: float) -> str:
    polygons = outlines(mask, SIDE) if isinstance(mask, Runs) else mask
    return f'<path d="{closed(map(thinned, polygons), scale)}"/>'


def thinned(polygon: Sequence[float]) -> list[float]:
    """A polygon `x y x y ...` with `MOST_CORNERS` of its corners at most."""
    corners = list(zip(polygon[::2], polygon[1::2], strict=True))
    step = max(1, -(-len(corners) // MOST_CORNERS))
    return [side for corner in corners[::step] for side in corner]


def _sure(each: Annotation) -> float:
    """Probability, or score, that an object is right; 1 where a person says so."""
    sure = each.probability if each.probability is not None else each.score
    return 1.0 if sure is None else sure


def _text(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)
