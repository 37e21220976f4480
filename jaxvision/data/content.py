"""Fingerprints of the whole content of data, for those who overwrite images in place."""

from collections.abc import Iterator

import numpy as np

from jaxvision.data.source import Example, Source
from jaxvision.errors import nearest
from jaxvision.formats.fingerprint import digest
from jaxvision.masks.runs import Runs

FINGERPRINTS = ("quick", "full")


def fingerprinted(source: Source, fingerprint: str) -> Source:
    """The source with such a fingerprint.

    Args:
      source: of any kind.
      fingerprint: `"quick"` is the source's own, which for files knows names and sizes, so that an image that was replaced by
        one of as many bytes goes unnoticed. `"full"` covers every byte of every image and its annotations, and reads them
        all, once for each stream at every start of a run: some four seconds of a core for a GB, beside what the disk takes.

    Raises:
      ValueError: for another name.
    """
    check_fingerprint(fingerprint)
    if fingerprint == "quick":
        return source
    return source._replace(fingerprint=f"full-{digest(source.fingerprint, *_digests(source))}")


def check_fingerprint(fingerprint: str) -> None:
    """Raises ValueError for a name that is none of `FINGERPRINTS`."""
    if fingerprint not in FINGERPRINTS:
        raise ValueError(f"no fingerprint {fingerprint!r}{nearest(fingerprint, FINGERPRINTS)}")


def _digests(source: Source) -> Iterator[str]:
    """A digest of each example; one that can't be read has one, too."""
    for index in range(source.length):
        try:
            (example,) = source.read(np.array([index]))
        except OSError as error:
            yield digest("unreadable", type(error).__name__)
        else:
            yield digest(*_content(example))


def _content(example: Example) -> Iterator[str | bytes]:
    image, objects = example.image, example.objects
    arrays = [] if objects is None else [objects.boxes, objects.labels, objects.ignore, objects.area]
    yield repr((example.label, example.fault))
    yield image if isinstance(image, bytes) else repr(image.shape)
    for each in (None if isinstance(image, bytes) else image, *arrays, example.proposals, *(example.map or ())):
        yield b"" if each is None else np.ascontiguousarray(each).tobytes()
    for mask in () if objects is None or objects.masks is None else objects.masks:
        yield mask.counts if isinstance(mask, Runs) else np.packbits(mask).tobytes()
