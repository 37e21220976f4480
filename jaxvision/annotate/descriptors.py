"""Descriptors of images that were computed before, kept beside a store so that `annotate next` decodes each image once.

They are kept by the digest of the file that was read: an image that was exchanged for another since has none.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxvision.errors import replacing

ENDING = "descriptors.npz"
FORM = 1
"""Form of the file, and of the descriptors: to be raised when either changes."""
Descriptors = dict[str, np.ndarray]
"""Descriptors, float32, by the SHA-256 of the image files in hexadecimal."""


def beside(store: Path) -> Path:
    """The file of the descriptors of a store of this file."""
    return store.with_suffix(f".{ENDING}")


def read(path: Path, length: int) -> Descriptors:
    """What a file has; nothing where it is not there, damaged, of another form, or of descriptors of another length."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            form, digests, features = (found[name] for name in ("form", "digests", "features"))
    except Exception:  # of a damaged file zipfile, zlib and numpy raise what they like; it is only made again
        return {}
    fits = form.shape == () and form == FORM and digests.dtype == np.uint8 and features.dtype == np.float32
    if not fits or digests.shape != (len(features), 32) or features.shape != (len(features), length):
        return {}
    return {digest.tobytes().hex(): each for digest, each in zip(digests, features, strict=True)}


def write(path: Path, descriptors: Mapping[str, np.ndarray]) -> bool:
    """Writes the file, whole or not at all; whether it could be: a store may lie where nothing may be written."""
    digests = np.asarray([np.frombuffer(bytes.fromhex(each), np.uint8) for each in descriptors]).reshape(-1, 32)
    features = np.asarray(list(descriptors.values()), np.float32)
    try:
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, form=np.int64(FORM), digests=digests, features=features)
    except OSError:
        return False
    return True
