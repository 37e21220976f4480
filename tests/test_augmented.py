"""The command that draws what the augmentation of an experiment does."""

from pathlib import Path

import numpy as np
import pytest
from finished_run import one_line
from matplotlib.patches import Rectangle
from PIL import Image
from tiny_experiment import get_config

from jaxvision import augmented
from jaxvision.augment import identity
from jaxvision.data.samples import photos_dir
from jaxvision.types import Batch

HERE = Path(__file__).parent
TINY = HERE / "tiny_experiment.py"
OBJECTS = """
import jax, numpy as np
from jaxvision.augment import chain, flip, mixup
from jaxvision.types import About, Batch, Objects, SegmentationMap, Stream, Task
from jaxvision.experiment import Experiment
from ml_collections import ConfigDict

def get_config():
    return ConfigDict({"augment": "flip"})

def batch():
    masks = np.zeros((4, 2, 8, 10), bool)
    masks[:, 0, 2:5, 1:4] = True
    boxes = np.tile(np.float32([[1, 2, 4, 5], [0, 0, 0, 0]]), (4, 1, 1))
    valid = np.tile([True, False], (4, 1))
    objects = Objects(boxes, np.zeros((4, 2), np.int32), valid, ~valid, masks=masks)
    scene = SegmentationMap(np.tile(np.arange(10, dtype=np.int32) // 5, (4, 8, 1)), np.ones((4, 8, 10), bool))
    size, index = np.tile(np.int32([8, 10]), (4, 1)), np.arange(4, dtype=np.int32)
    return Batch(np.full((4, 8, 10, 3), 200, np.uint8), size, size, index, index >= 0, {"o": objects, "s": scene})

def build(config):
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch())
    stream = Stream(shapes, lambda step: iter([batch()]), lambda: About(4, ("cat", "dog"), str, ""))
    task = Task(lambda key, batch: {"params": {}}, lambda *given: None, lambda variables, batch: batch.image)
    augment = {"flip": flip(1.0), "mixup": mixup(1.0, 2), "": None}[config.augment]
    return Experiment(task, None, 1, stream, augment)
"""


@pytest.fixture
def objects(tmp_path):
    path = tmp_path / "objects.py"
    path.write_text(OBJECTS)
    return path


def figure_of(config, *options):
    return augmented.sheet(augmented.parse([f"--config={config}", "--output=any.png", *options]))


def pictures(figure):
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes]


def test_a_row_shows_an_image_as_it_is_and_then_augmented(tmp_path, capsys):
    output = tmp_path / "sheet.png"
    options = ["--rows=3", "--columns=4", "--config.classes=2"]
    assert augmented.main([f"--config={TINY}", f"--output={output}", *options]) == 0
    assert "3 images, each as it is and augmented 3 times" in capsys.readouterr().out
    with Image.open(output) as picture:
        assert picture.size[0] > 600
    figure = figure_of(TINY, *options)
    assert len(figure.axes) == 12
    every = pictures(figure)
    for row, name in enumerate(["astronaut", "chelsea", "coffee"]):
        photo = Image.open(photos_dir() / f"{name}.jpg").convert("L")
        side = int(get_config().size)
        scale = side / max(photo.size)
        height, width = (round(photo.size[i] * scale) for i in (1, 0))
        by_pil = np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(every[4 * row][:height, :width, 0].astype(int) - by_pil).max() <= 2
        assert all(np.any(every[4 * row] != each) for each in every[4 * row + 1 : 4 * row + 4])
    texts = [text.get_text() for text in figure.texts]
    assert texts.count("chelsea.jpg") == 4
    assert [texts.count(note) for note in ("as it is", "augmented 1", "augmented 3")] == [3, 3, 3]
    assert (
        texts.count("astronaut.jpg, coffee.jpg") == 8
    )  # of three images and two classes, the first and the last share one


@pytest.mark.slow
def test_the_seed_decides_and_files_can_be_named():
    chosen = str(photos_dir() / "rocket.jpg")
    first, again, other = (pictures(figure_of(TINY, chosen, "--columns=3", f"--seed={s}")) for s in (0, 0, 1))
    assert len(first) == 3
    assert all(np.array_equal(*pair) for pair in zip(first, again, strict=True))
    assert np.array_equal(first[0], other[0])
    assert any(not np.array_equal(*pair) for pair in zip(first, other, strict=True))


def test_training_data_are_drawn_with_their_boxes_masks_and_maps(objects):
    figure = figure_of(objects, "--train", "--rows=2", "--columns=2")
    boxes = [[p for p in axes.patches if isinstance(p, Rectangle)] for axes in figure.axes]
    assert [len(each) for each in boxes] == [1, 1, 1, 1]
    assert [each[0].get_x() for each in boxes] == [0.5, 5.5, 0.5, 5.5]  # 1 to 4 becomes 6 to 9; half a pixel of drawing
    before, after = pictures(figure)[:2]
    np.testing.assert_array_equal(before, after[:, ::-1])
    colours = {tuple(colour) for colour in before.reshape(-1, 3)}
    assert len(colours) == 3  # the two classes of the map, and one of them below the mask
    assert "1 object, 2 classes" in {text.get_text() for text in figure.texts}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--config.augment="], "has no augmentation"),
        (["--config.augment=mixup", "--train"], "can't be drawn on these images: mixup cannot mix batch.target"),
        (["--config.augmen=flip"], "did you mean 'augment'"),
        (["nowhere"], "no file or folder nowhere"),
        ([str(HERE / "golden")], "there is no image in "),
        ([str(HERE / "conftest.py")], "conftest.py: "),
    ],
)
def test_what_is_wrong_is_told_in_one_line(objects, tmp_path, capfd, options, told):
    status = augmented.main([f"--config={objects}", f"--output={tmp_path}/sheet.png", *options])
    assert status == 2
    assert told in one_line(capfd.readouterr().err)
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--output=a.jpg"], "must end in .png"),
        (["--output=a.png", "--rows=0"], "--rows=0"),
        (["--output=a.png", "--train", "photos"], "leave out the paths"),
    ],
)
def test_a_wrong_command_line_is_refused(capsys, options, told):
    with pytest.raises(SystemExit):
        augmented.parse([f"--config={TINY}", *options])
    assert told in capsys.readouterr().err


def test_all_draws_of_an_image_stand_in_its_row():
    image = np.zeros((3, 8, 10, 3), np.uint8) + np.arange(3, dtype=np.uint8)[:, None, None, None]
    size, index = np.tile(np.int32([8, 10]), (3, 1)), np.arange(3, dtype=np.int32)
    rows = augmented.augmented(identity, Batch(image, size, size, index, index >= 0), 4, 0)
    assert [[int(each.image[0, 0, 0]) for each in row] for row in rows] == [[0] * 4, [1] * 4, [2] * 4]


def test_the_sheet_is_not_written_among_the_images_that_are_read(tmp_path, capfd):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    output = tmp_path / "sheet.png"
    assert augmented.main([f"--config={TINY}", f"--output={output}", str(tmp_path)]) == 2
    message = f"{output} lies in {tmp_path}, whose images are read: name a place outside of it"
    assert one_line(capfd.readouterr().err).endswith(message)
    assert not output.exists()
