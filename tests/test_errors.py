"""What a user can mend: files whole or not at all, the nearest name."""

import pytest

from jaxvision.errors import closest, nearest, replacing, write_atomically


def test_a_file_is_replaced_whole_or_stays(tmp_path):
    path = tmp_path / "a.txt"
    write_atomically(path, "é")
    assert path.read_bytes() == "é".encode()
    write_atomically(path, b"\x00")

    def fail():
        with replacing(path) as partial:
            partial.write_text("half")
            assert path.read_bytes() == b"\x00"
            raise RuntimeError("half")

    with pytest.raises(RuntimeError, match="half"):
        fail()
    assert path.read_bytes() == b"\x00"
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]


def test_the_nearest_name_or_as_many_as_fit_a_line():
    names = ["learning_rate", "batch_size", *"abcdefgh"]
    assert nearest("learning_rat", names) == "; did you mean 'learning_rate'?"
    assert nearest("zzz", names) == "; there are: learning_rate, batch_size, a, b, c, d, e, f and 2 more"
    assert nearest("zzz", []) == ""
    assert closest("zzz", ["x", "batch_size"], 2, likeness=0) != []
