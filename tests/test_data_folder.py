import numpy as np
import pytest
from data_encoding import encoded, labelled, noise, write_folder

from jaxvision.data import folder


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())


def test_images_are_found_sorted_below_their_class(tmp_path):
    touch(
        tmp_path, "bee/2.JPG", "bee/10.jpeg", "bee/old/1.PNG", "bee/.hidden.png", "bee/.cache/x.png", "bee/readme.txt"
    )
    touch(
        tmp_path, "ant/z.webp", "ant/a.bmp", "ant/b.Gif", "cat/deep/deeper/x.png", ".git/y.png", "stray.png", "zoo.csv"
    )
    source = folder.source(tmp_path)
    assert source.classes == folder.classes(tmp_path) == ("ant", "bee", "cat")
    names = [
        "ant/a.bmp",
        "ant/b.Gif",
        "ant/z.webp",
        "bee/10.jpeg",
        "bee/2.JPG",
        "bee/old/1.PNG",
        "cat/deep/deeper/x.png",
    ]
    assert [source.name(i) for i in range(source.length)] == names
    assert source.labels().tolist() == [0, 0, 0, 1, 1, 1, 2]
    read = source.read(np.array([6, 0, 4]))
    assert [(example.image.decode(), example.label) for example in read] == [
        (names[6], 2),
        (names[0], 0),
        (names[4], 1),
    ]
    assert source.notes == (f"{tmp_path}: left out 3 of 10 files: 1 .csv in no class, 1 .png in no class, 1 .txt",)


def test_the_fingerprint_changes_with_names_and_sizes_but_not_with_the_place(tmp_path):
    images, labels, classes = labelled(9)
    first = folder.source(write_folder(tmp_path / "x", images, labels, classes)).fingerprint
    second = write_folder(tmp_path / "y", images, labels, classes)
    assert folder.source(second).fingerprint == first
    (second / "ant" / "extra.png").write_bytes(encoded(noise(2, 2)))
    third = folder.source(second).fingerprint
    (second / "ant" / "extra.png").write_bytes(encoded(noise(20, 20)))
    assert len({first, third, folder.source(second).fingerprint}) == 3


def test_what_is_no_folder_of_classes_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent is no folder"):
        folder.source(tmp_path / "absent")
    touch(tmp_path, "a.png", ".hidden/b.png")
    with pytest.raises(ValueError, match="has no class: expected a folder for each"):
        folder.source(tmp_path)
    touch(tmp_path, "ant/a.png", "bee/notes.txt", "bee/b.heic")
    with pytest.raises(ValueError, match=r"bee has no image \(.jpg, .*\), and 2 other files"):
        folder.source(tmp_path)


def test_a_test_folder_may_lack_classes_of_the_training_data_but_has_no_others(tmp_path):
    touch(tmp_path, "dog/a.png", "ant/b.png", "ant/c.png")
    (tmp_path / "bee").mkdir()
    source = folder.source(tmp_path, ("ant", "bee", "cat", "dog"))
    assert source.classes == ("ant", "bee", "cat", "dog")
    assert source.labels().tolist() == [0, 0, 3]
    assert source.notes == (f"{tmp_path}: no image of bee, cat",)
    message = r"dog is the folder of none of the classes; did you mean 'dogs'\? \(there are: ant, bee, dogs\)$"
    with pytest.raises(ValueError, match=message):
        folder.source(tmp_path, ("ant", "bee", "dogs"))
    (tmp_path / "empty/ant").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"empty has no image \(.jpg, .*\), and 0 other files"):
        folder.source(tmp_path / "empty", ("ant", "bee"))


def test_a_run_among_the_classes_is_none(tmp_path):
    touch(
        tmp_path,
        "ant/a.png",
        "run/provenance.json",
        "run/report/curves.png",
        "ant/b/preflight/report.txt",
        "ant/b/c.png",
    )
    source = folder.source(tmp_path)
    assert source.classes == folder.classes(tmp_path) == ("ant",)
    assert source.length == 1
    assert source.notes == (f"{tmp_path}: left out 2 of 3 files: 1 workdir of a run, 1 workdir of a run in no class",)


def test_endings_that_are_not_read_are_counted(tmp_path):
    touch(tmp_path, *(f"ant/{n}.{end}" for n in range(2) for end in ("jfif", "tif", "JPE", "heic")), "ant/3.tga")
    source = folder.source(tmp_path)
    assert source.length == 6
    assert source.notes == (f"{tmp_path}: left out 3 of 9 files: 2 .heic, 1 .tga",)
