"""Fingerprints of data: short texts that change when the data change."""

import hashlib


def digest(*parts: str | bytes | memoryview) -> str:
    """A fingerprint of these texts and bytes in this order: 32 hexadecimal digits.

    Names of files that are no UTF-8 count with the bytes that they have on disk.
    """
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = memoryview(part.encode(errors="surrogateescape") if isinstance(part, str) else part)
        state.update(data.nbytes.to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()
