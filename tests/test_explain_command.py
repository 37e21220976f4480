"""The explain command, on finished runs of a classifier and a detector: its files, its page, and what it refuses."""

import re
from pathlib import Path

import numpy as np
import pytest
from detectors import SIDE
from explained_experiment import scene
from finished_run import finished_run, noise, one_line, save
from PIL import Image

from jaxvision import explain, main, run
from jaxvision.run import prediction
from jaxvision.trust.explain import explaining, writing
from jaxvision.trust.explain.explaining import Asked

DETECTOR = Path(__file__).with_name("explained_experiment.py")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return finished_run(tmp_path_factory.getbasetemp() / "finished_run")


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A run of an SSD, and beside it an image file."""
    place = tmp_path_factory.mktemp("explained")
    assert main.main([f"--config={DETECTOR}", f"--workdir={place / 'run'}", "--no-report"]) == 0
    save(place / "scene.png", scene())
    return place / "run"


@pytest.fixture
def command(tmp_path, capfd):
    def of(workdir, *options):
        capfd.readouterr()
        try:
            status = explain.main([f"--workdir={workdir}", f"--output={tmp_path / 'maps'}", *map(str, options)])
        except SystemExit as error:
            status = error.code
        printed = capfd.readouterr()
        return status, printed.out + printed.err, tmp_path / "maps"

    return of


def explained(workdir, pixels, method, asked):
    """What the library gives for the same image."""
    model = prediction.load(workdir)
    canvas = model.preprocessing(pixels)
    batch = prediction.batch_of([canvas], prediction.with_rows(model.spec, 1), 0)
    return canvas, explaining.explain(model.task, model.variables, batch, model.classes, method, asked)


def test_images_of_a_classifier_have_pictures_arrays_a_page_and_a_summary(classifier, command, tmp_path):
    files = [save(tmp_path / "images" / f"{name}.png", noise(seed)) for seed, name in enumerate(("a", "b<i>"))]
    status, said, output = command(classifier, tmp_path / "images", "--method=saliency", "--class=dot", "--check")
    assert status == 0, said
    names = [f"{i:06d}_{name}" for i, name in enumerate(("a", "b<i>"))]
    arrays = sorted(output.glob("*.npz"))
    assert (
        len(arrays) == len(names) == len(list(output.glob("*_saliency.png"))) == len(list(output.glob("*_image.png")))
    )
    for path, file in zip(arrays, files, strict=True):
        found = dict(np.load(path))
        canvas, expected = explained(classifier, file.read_bytes(), "saliency", Asked(label="dot"))
        np.testing.assert_allclose(found["map"], expected.map, atol=1e-5)
        assert found["map"].shape == canvas.size
        assert found["label"] == 2
        assert found["score"] == pytest.approx(expected.score, rel=1e-5)
        np.testing.assert_allclose(found["deletion"], np.stack(expected.deletion), atol=1e-5)
        assert found["insertion"].shape == (2, 33)
        assert -1 <= found["rank_correlation"] <= 1
        shape = np.asarray(Image.open(path.with_suffix(".png"))).shape
        assert min(shape[:2]) >= 320
        assert shape == np.asarray(Image.open(str(path).replace("_saliency.npz", "_image.png"))).shape
        assert f"{file}: dot, score {expected.score:.3f}; mean score while hiding {expected.deletion.area:.3f}" in said
    assert re.search(r"mean ± standard deviation of 2 images: mean score while hiding \d.\d{3} ± \d.\d{3};", said)
    assert "rank correlation with randomised parameters" in said
    page = (output / "index.html").read_text()
    assert page.count("<section>") == 2
    assert "b&lt;i&gt;.png" in page
    assert "<i>" not in page
    for source in re.findall(r'src="([^"]*)"', page):
        assert (output / source.replace("&lt;", "<").replace("&gt;", ">")).exists()


@pytest.mark.slow
def test_a_detection_and_a_missed_object_are_explained(detector, command):
    image = detector.parent / "scene.png"
    status, said, output = command(detector, image, "--method=odam", "--detection=2")
    assert status == 0, said
    found = dict(np.load(next(output.glob("*_odam.npz"))))
    record = run.load(detector).predict([image], score_threshold=0.0)[0]["objects"][1]
    np.testing.assert_allclose(found["box"], record["box"], atol=0.6)
    assert found["map"].shape == (SIDE, SIDE)
    assert found["window"].tolist() == [0, 0, 3 * SIDE, 2 * SIDE]
    assert re.search(r"\d+ % of the map's energy in the box, its highest value (in|out)side", said)
    x0, y0, x1, y1 = record["box"]
    status, side, output = command(detector, image, "--method=odam", "--detection=2", "--side=right")
    assert status == 0, side
    assert "the right side of " in side
    other = dict(np.load(next(output.glob("*_odam.npz"))))
    assert np.abs(other["map"] - found["map"]).max() > 0
    box = f"--box={x0},{y0},{x1},{y1}"
    status, said, output = command(detector, image, "--method=d_rise", f"--class={record['label']}", box, "--masks=16")
    assert status == 0, said
    missed = dict(np.load(next(output.glob("*_d_rise.npz"))))
    np.testing.assert_allclose(missed["box"], record["box"], atol=0.01)


WRONG = {
    "a layer": (["--method=grad_cam", "--layer=stage2_conv"], "no layer 'stage2_conv' among", "stage2_conv1"),
    "a class": (["--method=saliency", "--class=dott"], "no class 'dott' among 3 classes; did you mean 'dot'"),
    "a method": (["--method=grad-cam"], "invalid choice: 'grad-cam'"),
    "a side": (["--method=saliency", "--side=left"], "a side of one is explained of a detector"),
    "no transformer": (["--method=rollout"], "rollout is for a vision transformer"),
    "two objects": (["--method=odam", "--detection=1", "--class=dot"], "--detection= names an object of itself"),
    "an empty box": (["--method=odam", "--class=dot", "--box=3,3,3,9"], "is an empty box: X0 < X1 and Y0 < Y1"),
    "half a box": (["--method=odam", "--class=dot", "--box=3,3"], "is no box X0,Y0,X1,Y1: four numbers"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_there_is_refused_and_nothing_is_written(classifier, command, tmp_path, case):
    options, *texts = WRONG[case]
    status, said, output = command(classifier, save(tmp_path / "a.png", noise(0)), *options)
    assert status == 2
    for text in texts:
        assert text in said
    assert "Traceback" not in said
    assert not output.exists()


WRONG_OBJECTS = {
    "beyond the count": (
        ["--method=odam", "--detection=900"],
        r"no detection 900: the image has \d+ detections; allowed",
    ),
    "without a class": (
        ["--method=odam", "--box=1,1,9,9"],
        "a missed object needs its class beside its box: --class=NAME",
    ),
    "far away": (
        ["--method=odam", "--class=square", "--box=900,900,910,910"],
        "no candidate of the detector meets the box",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", WRONG_OBJECTS)
def test_objects_that_are_not_there_are_refused(detector, command, case):
    options, text = WRONG_OBJECTS[case]
    status, said, output = command(detector, detector.parent / "scene.png", *options)
    assert status == 2
    assert re.search(text, one_line(said))
    assert not output.exists()


def test_an_attribution_of_zero_is_an_error_and_the_other_images_are_explained(
    classifier, command, tmp_path, monkeypatch
):
    def dark(subject, image, asked, baseline):
        return np.full(image.shape[1:3], float(image[0, 0, 0, 1] > 100))

    monkeypatch.setitem(explaining.METHODS, "saliency", dark)
    files = [save(tmp_path / "images" / f"{i}.png", noise(i)) for i in range(3)]  # the second is mostly green
    status, said, output = command(classifier, files[0], "--method=saliency")
    assert status == 2
    assert f"1 of 1 image without an explanation, the first is {files[0]}: the attribution of " in one_line(said)
    assert not output.exists()
    status, said, output = command(classifier, tmp_path / "images", "--method=saliency")
    assert status == 2
    assert re.search(
        "2 of 3 images without .*0.png: the attribution of (circle|cross|dot) is zero everywhere", one_line(said)
    )
    assert (output / "index.html").read_text().count("<section>") == 1
    assert len(list(output.glob("*.npz"))) == 1


def test_a_summary_leaves_out_maps_that_are_constant_and_says_so():
    of = lambda value: writing.Written("a", "b", "c", "d", (), {"deletion": 0.25, "rank_correlation": value})
    (line,) = writing.summary([of(0.5), of(float("nan")), of(0.25)])
    assert line.endswith("0.375 ± 0.125, of 2; the map is constant in the others")
    assert "mean score while hiding 0.250 ± 0.000" in line
    assert writing.summary([of(0.5)]) == ()
