import hashlib

import numpy as np
import pytest

from jaxvision.data import arrays
from jaxvision.data.source import concatenate
from jaxvision.formats.fingerprint import digest


def make(name, n, start=0, classes=("a", "b")):
    images = (np.arange(start, start + n, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 3), np.uint8)).astype(
        np.uint8
    )
    return arrays.source(images, np.arange(n) % 2, classes, name=name)


def test_concatenated_sources_are_read_as_one_in_any_order():
    both = concatenate(make("x", 3), make("y", 4, start=3), make("z", 2, start=7))
    assert both.length == 9
    wanted = np.array([8, 0, 3, 3, 6, 2, 7])
    examples = both.read(wanted)
    assert [int(example.image[0, 0]) for example in examples] == wanted.tolist()
    assert [example.label for example in examples] == both.labels()[wanted].tolist()
    assert [both.name(i) for i in (0, 3, 8)] == ["x[0]", "y[0]", "z[1]"]
    assert both.read(np.array([], np.int64)) == []


def test_the_fingerprint_of_a_concatenation_depends_on_the_parts_and_their_order():
    x, y = make("x", 3), make("y", 4)
    assert concatenate(x, y).fingerprint == concatenate(make("x", 3), make("y", 4)).fingerprint
    assert len({concatenate(x, y).fingerprint, concatenate(y, x).fingerprint, x.fingerprint}) == 3


def test_sources_of_different_classes_do_not_concatenate():
    with pytest.raises(ValueError, match=r"only source 0 has \['b'\]; only source 2 has \['c'\]"):
        concatenate(make("x", 2), make("y", 2), make("z", 2, classes=("a", "c")))
    with pytest.raises(ValueError, match="same names in another order"):
        concatenate(make("x", 2), make("y", 2, classes=("b", "a")))
    with pytest.raises(ValueError, match="at least one source"):
        concatenate()


def test_a_digest_knows_where_its_parts_end():
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("ab", b"c") == digest(b"ab", "c")


def test_names_of_files_that_are_no_utf_8_have_a_digest_and_others_keep_theirs():
    assert digest("caf\udce9.png") == digest(b"caf\xe9.png") != digest("café.png")
    ordinary = hashlib.blake2b((9).to_bytes(8, "little") + "café.png".encode(), digest_size=16)
    assert digest("café.png") == ordinary.hexdigest()
