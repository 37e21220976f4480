"""`experiments/segment.py` on data as people have them: a folder of masks, black and white ones, COCO objects with masks."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvision.data import samples
from jaxvision.errors import ConfigError
from jaxvision.run import config

FILE = Path(__file__).parent.parent / "experiments" / "segment.py"
SMALL = {"size": "64", "batch_size": "2", "steps": "2"}


def built(**fields):
    return config.build(FILE, {**SMALL, **fields})[0]


def folder_of_maps(place, on=1, classes="background\ncell\n"):
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (place / kind).mkdir(parents=True)
    for number in range(5):
        mask = np.zeros((40, 50), np.uint8)
        mask[5:20, 10 : 20 + number] = on
        image = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(image).save(place / "images" / f"{number}.jpg")
        Image.fromarray(mask).save(place / "masks" / f"{number}.png")
    if classes:
        (place / "classes.txt").write_text(classes)
    return place


@pytest.mark.parametrize(
    "fields", [{}, {"mask_values": "0:0,255:1", "classes": "('background', 'cell')"}], ids=["ids", "bw"]
)
def test_a_folder_of_masks(tmp_path, fields):
    place = folder_of_maps(tmp_path / "data", on=255 if fields else 1, classes="" if fields else "background\ncell\n")
    experiment = built(train=str(place), **fields)
    assert experiment.train.about().classes == ("background", "cell")
    assert (experiment.train.about().examples, experiment.evaluations["test"].stream.about().examples) == (4, 1)
    batch = next(experiment.evaluations["test"].stream.batches(0))
    label, valid = np.asarray(batch.target.label[0]), np.asarray(batch.target.valid[0])
    height, width = np.asarray(batch.size[0])
    assert (height, width) == (51, 64)
    assert valid[:height, :width].all()
    assert not valid[height:].any()
    assert 0.05 < (label == 1).mean() < 0.3


def test_objects_of_coco_are_classes_before_a_background():
    experiment = built(train=str(samples.nuclei_dir() / "train.json"), test=str(samples.nuclei_dir() / "test.json"))
    assert experiment.train.about().classes == ("background", "nucleus")
    assert experiment.evaluations["test"].stream.about().examples == 4
    batch = next(experiment.train.batches(0))
    assert 0.02 < np.asarray(batch.target.label).mean() < 0.6


def test_what_can_not_be_used_is_named(tmp_path):
    with pytest.raises(ValueError, match="--config.train= says what to train on"):
        built()
    with pytest.raises(ValueError, match=r"--config.mask_values='0-1': allowed are pairs such as 0:0,255:1"):
        built(train=str(folder_of_maps(tmp_path / "data")), mask_values="0-1")
    with pytest.raises(ValueError, match="no network 'unett'; did you mean 'unet'"):
        built(train="x", network="unett")
    (tmp_path / "yolo/images").mkdir(parents=True)
    (tmp_path / "yolo/labels").mkdir()
    with pytest.raises(ConfigError, match=r"--config.train: .* is a YOLO folder, which has no masks"):
        built(train=str(tmp_path / "yolo"))
