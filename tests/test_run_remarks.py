import pytest

from jaxvision.run.remarks import remarks
from jaxvision.types import About


def about(classes, **more):
    return About(3, classes, str, "", **more)


def test_what_two_streams_say_is_there_once():
    same = {"notes": ("x: left out 1 of 4 files: 1 .heic",), "doubts": ("boxes look like corners",)}
    assert remarks({"train": about(("a",), **same), "evaluation test": about(("a",), **same)}) == [
        "train: x: left out 1 of 4 files: 1 .heic",
        "train: boxes look like corners",
    ]


@pytest.mark.parametrize(
    ("classes", "how"),
    [(("a", "b", "c"), "only here: c"), (("a",), "only in train: b"), (("b", "a"), "they are in another order")],
)
def test_classes_of_an_evaluation_that_are_not_those_of_training_are_named(classes, how):
    found = remarks({"train": about(("a", "b")), "evaluation test": about(classes)})
    assert found == [f"evaluation test: its classes are not those of train: {how}"]
