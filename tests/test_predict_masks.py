"""Runs of segmenters whose masks are known: figures, pictures, and what predict writes of them."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from finished_run import one_line, save
from masks_experiment import CLASSES, COLOURS, COUNT, scene
from PIL import Image
from pycocotools.coco import COCO
from test_run_processes import ended, meeting, port, start  # noqa: F401

from jaxvision import main, predict, run
from jaxvision.draw.palette import class_colours, levels
from jaxvision.masks import runs
from jaxvision.run import rows, tiles
from jaxvision.run.coco_masks import mask_of

FILE = Path(__file__).with_name("masks_experiment.py")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run of a kind of segmenter, made once; beside each the scenes as files."""
    place = tmp_path_factory.mktemp("masks")
    for i in range(COUNT):
        save(place / "scenes" / f"{i}.png", scene(i)[0])

    def of(kind):
        if not (place / kind).exists():
            command = [f"--config={FILE}", f"--workdir={place / kind}", f"--config.kind={kind}", "--no-report"]
            assert main.main(command) == 0
        return place / kind

    return of


@pytest.fixture
def command(trained, tmp_path, capfd):
    def of(kind, *options, name="out.jsonl"):
        output, workdir = tmp_path / name, trained(kind)
        capfd.readouterr()
        arguments = [f"--workdir={workdir}", str(workdir.parent / "scenes"), f"--output={output}", *options]
        status = predict.main(arguments)
        printed = capfd.readouterr()
        return status, printed.out + printed.err, output

    return of


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def figures_of(workdir):
    return next(row for row in lines(workdir / "metrics.jsonl") if any(name.startswith("test/") for name in row))


def overlap(mask, true):
    return (mask & true).sum() / (mask | true).sum()


@pytest.mark.parametrize(
    ("kind", "name", "least"),
    [
        ("instances", "mask_AP", 0.8),
        ("semantic", "mIoU", 0.85),
        pytest.param("panoptic", "SQ/red", 0.85, marks=pytest.mark.slow),
    ],
)
def test_a_run_has_its_figures(trained, kind, name, least):
    figures = figures_of(trained(kind))
    assert figures[f"test/{name}"] > least
    if kind == "instances":
        assert figures["test/mask_AP50"] == figures["test/AP50"] == pytest.approx(1)


def test_masks_of_objects_are_those_of_the_files(command):
    status, said, output = command("instances", "--score=0")
    assert status == 0, said
    for i, row in enumerate(lines(output)):
        image, masks = scene(i)
        assert [each["label"] for each in row["objects"]] == list(COLOURS[: len(masks)])
        for each, true in zip(row["objects"], masks, strict=True):
            mask = runs.decode(runs.of_coco(each["segmentation"]))
            assert mask.shape == image.shape[:2]
            assert each["area"] == mask.sum()
            assert overlap(mask, true) > 0.85


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of pycocotools
def test_polygons_are_the_same_masks_and_coco_reads_both(command):
    before = []
    for form in ("rle", "polygons"):
        status, said, output = command("instances", "--score=0", f"--masks={form}", name=f"{form}.json")
        assert status == 0, said
        with contextlib.redirect_stdout(io.StringIO()):
            data = COCO(output)
        masks = [data.annToMask(each) for each in data.anns.values()]
        assert {type(each["segmentation"]) for each in data.anns.values()} == {dict if form == "rle" else list}
        assert [each["area"] for each in data.anns.values()] == [mask.sum() for mask in masks]
        for mask, other in zip(masks, before or masks, strict=True):
            np.testing.assert_array_equal(mask, other)
        before = masks


@pytest.mark.parametrize("form", ["rle", "polygons"])
def test_class_maps_are_written_with_a_palette_and_their_fractions(command, tmp_path, form):
    status, said, output = command("semantic", f"--maps={tmp_path / 'maps'}", f"--masks={form}")
    assert status == 0, said
    for i, row in enumerate(lines(output)):
        image, masks = scene(i)
        assert row["map"] == f"{i:06}_{i}.png"
        with Image.open(tmp_path / "maps" / row["map"]) as map:
            assert map.mode == "P"
            labels, palette = np.asarray(map), np.reshape(map.getpalette()[:12], (4, 3))
        np.testing.assert_array_equal(palette, levels(class_colours(CLASSES["semantic"])))
        assert labels.shape == image.shape[:2]
        assert (row["height"], row["width"]) == labels.shape
        assert row["classes"][0]["name"] == "background"
        assert sum(each["pixels"] for each in row["classes"]) == labels.size
        assert sum(each["fraction"] for each in row["classes"]) == pytest.approx(1)
        for each in row["classes"]:
            mask = runs.decode(mask_of(each["segmentation"], labels.shape))
            np.testing.assert_array_equal(mask, labels == each["label"])
            assert each["category_id"] == each["label"] + 1
        written = [type(each["segmentation"]) for each in row["classes"]]
        assert written[0] is dict  # the background has holes
        assert set(written[1:]) == {dict if form == "rle" else list}
        for k, true in enumerate(masks, 1):
            assert overlap(labels == k, true) > 0.75


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of pycocotools
def test_class_maps_as_a_table_and_as_stuff_of_coco(command):
    status, said, output = command("semantic", name="out.csv")
    assert status == 0, said
    header, first, *_ = output.read_text().splitlines()
    assert header == "file,frame,class,pixels,fraction"
    assert first.split(",")[2] == "background"
    status, said, output = command("semantic", name="out.json")
    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO(output)
    for image in data.imgs.values():
        covered = sum(data.annToMask(each) for each in data.imgToAnns[image["id"]])
        assert (covered == 1).all()


@pytest.mark.slow
def test_panoptic_files_are_those_of_coco(command, tmp_path):
    folders = [f"--maps={tmp_path / 'maps'}", f"--draw={tmp_path / 'drawn'}"]
    status, said, output = command("panoptic", *folders, name="out.json")
    assert status == 0, said
    found = json.loads(output.read_text())
    assert [each["isthing"] for each in found["categories"]] == [1, 1, 1, 0]
    for i, annotation in enumerate(found["annotations"]):
        with Image.open(tmp_path / "maps" / annotation["file_name"]) as map:
            red, green, blue = np.moveaxis(np.asarray(map, np.int64), -1, 0)
        ids = red + 256 * green + 256**2 * blue
        assert annotation["image_id"] == i + 1
        assert sorted({*np.unique(ids).tolist()} - {0}) == [each["id"] for each in annotation["segments_info"]]
        for each in annotation["segments_info"]:
            assert each["area"] == (ids == each["id"]).sum()
        named = {each["category_id"]: each["id"] for each in annotation["segments_info"]}
        for k, true in enumerate(scene(i)[1][:2], 1):
            assert overlap(ids == named[k], true) > 0.75
    assert len([*(tmp_path / "drawn").iterdir()]) == COUNT


def test_what_a_model_can_not_do_is_told(command, tmp_path):
    status, said, output = command("instances", f"--maps={tmp_path / 'maps'}")
    assert status == 2
    assert one_line(said) == "jaxvision: --maps is for a model that finds the class or the segment of each pixel"
    assert not output.exists()


@pytest.mark.slow
def test_a_model_predicts_masks_from_python(trained):
    model = run.load(trained("instances"))
    image, masks = scene(1)
    (record,) = model.predict([image], score_threshold=0)
    for each, true in zip(record["objects"], masks, strict=True):
        assert overlap(runs.decode(runs.of_coco(each["segmentation"])), true) > 0.85


@pytest.mark.slow
def test_a_run_resumes_and_is_measured_against_the_source_itself(trained, tmp_path):
    begun = [f"--config={FILE}", f"--workdir={tmp_path / 'run'}", "--no-report", "--config.truth=True"]
    assert main.main([*begun, "--config.steps=2"]) == 0
    assert main.main([*begun, "--config.steps=4", "--fork"]) == 0
    assert [row["step"] for row in lines(tmp_path / "run/metrics.jsonl") if "test/mask_AP" in row] == [2, 4]
    table = rows.read(tmp_path / "run", "test")
    for i in range(COUNT):
        masks = table.columns["true_masks"][i].split(b"\n")
        assert masks == [runs.encode(mask).counts for mask in scene(i)[1]]
    again = run.evaluate(tmp_path / "run", "latest").evaluations["test"]
    assert again.rows["masks"].tolist() == table.columns["masks"].tolist()


def test_a_size_of_tiles_is_enough_from_python(trained):
    model, (image, _) = run.load(trained("semantic")), scene(0)
    large = np.tile(image, (2, 2, 1))
    (found,) = model.predict([large], tiling=64)
    assert found == model.predict([large], tiling=tiles.checked(64))[0]
    assert (found["height"], found["width"]) == large.shape[:2]


def test_a_model_is_told_in_a_line(trained):
    told = repr(run.load(trained("semantic")))
    assert told.startswith("Model(step 2, current weights, ")
    assert told.endswith(" 4 classes: background, red, green, ..., canvas 64x64)")


@pytest.mark.slow
@pytest.mark.parametrize("kind", CLASSES)
def test_figures_are_the_same_on_two_processes(trained, kind, tmp_path, port):  # noqa: F811
    both = [start(tmp_path / "run", f"--config.kind={kind}", *meeting(i, port), config=FILE) for i in range(2)]
    results = [ended(process) for process in both]
    assert [code for code, _ in results] == [0, 0], results
    one, two = (rows.read(folder, "test").columns for folder in (trained(kind), tmp_path / "run"))
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(two[name], one[name])
    assert figures_of(tmp_path / "run") == figures_of(trained(kind))
