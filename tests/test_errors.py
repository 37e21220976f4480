"""What a user can mend: files whole or not at all, the nearest name."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import jaxvision
from jaxvision.errors import UserError, amount, closest, creating, nearest, replacing, write_atomically


def test_every_exception_of_the_package_is_one_that_a_user_can_mend():
    names = [each.name for each in pkgutil.walk_packages(jaxvision.__path__, "jaxvision.")]
    classes = [
        each for name in names for each in vars(importlib.import_module(name)).values() if isinstance(each, type)
    ]
    ours = {each for each in classes if issubclass(each, Exception) and each.__module__.startswith("jaxvision.")}
    assert len(ours) > 10
    assert [each.__name__ for each in ours if not issubclass(each, UserError)] == []


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


@pytest.mark.parametrize("links", [True, False])
def test_a_file_is_created_whole_and_never_takes_the_place_of_another(tmp_path, monkeypatch, links):
    def no_link(file, to):
        raise PermissionError("no hard links here")

    if not links:
        monkeypatch.setattr("os.link", no_link)
    path, taken = tmp_path / "a.txt", tmp_path / "b.txt"
    with creating(path) as partial:
        partial.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"

    def late():
        with creating(taken) as partial:
            partial.write_text("late")
            taken.write_text("first")

    with pytest.raises(FileExistsError):
        late()
    assert taken.read_text() == "first"
    assert {each.name for each in tmp_path.iterdir()} == {"a.txt", "b.txt"}


def test_the_nearest_name_or_as_many_as_fit_a_line():
    names = ["learning_rate", "batch_size", *"abcdefgh"]
    assert nearest("learning_rat", names) == "; did you mean 'learning_rate'?"
    assert nearest("zzz", names) == "; there are: learning_rate, batch_size, a, b, c, d, e, f and 2 more"
    assert nearest("batch_siz", names[:2]) == "; did you mean 'batch_size'? (there are: learning_rate, batch_size)"
    assert nearest("zzz", []) == ""
    assert closest("zzz", ["x", "batch_size"], 2, likeness=0) != []


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [(1, "object", "1 object"), (0, "object", "0 objects"), (12345, "image", "12,345 images"), (2, "box", "2 boxes")]
    + [(2, "class", "2 classes"), (1, "class", "1 class"), (3, "category", "3 categories"), (2, "array", "2 arrays")]
    + [(2, "epoch", "2 epochs"), (0.5, "epoch", "0.5 epochs"), (1.0, "epoch", "1 epoch"), (2, "batch", "2 batches")],
)
def test_a_count_is_in_the_singular_or_the_plural(count, noun, text):
    assert amount(count, noun) == text


COUNTED = re.compile(
    r"\{[^{}]+\} (?:image|object|example|step|file|box|class|prediction|problem|array|device|frame|video|parameter)e?s\b"
)


def test_no_message_puts_a_plural_behind_a_count_of_one():
    root = Path(jaxvision.__file__).parent
    found = [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for path in sorted(root.rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if COUNTED.search(line) and ('f"' in line or "f'" in line) and "images/s" not in line and "{MOST_" not in line
    ]
    assert found == []
