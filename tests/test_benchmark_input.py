"""The benchmarks that begin with JPEG files: what the files are like, and that all programs cut the same crops from them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.benchmarks import run
from experiments.benchmarks.speed import contest, loader, loader_decoder, loader_ours, photographs, weight_files
from jaxvision.formats.image_file import upright_size


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(photographs.tempfile, "gettempdir", lambda: str(tmp_path))


def test_photographs_are_as_large_as_those_of_imagenet_and_made_once():
    paths = photographs.files(4)
    sizes = [Path(path).stat().st_size for path in paths]
    assert 105_000 < np.mean(sizes) < 135_000
    assert {upright_size(Path(path)) for path in paths} == {(375, 500)}
    assert len(set(sizes)) == 4
    assert photographs.files(4) == paths
    assert sorted(path.split("/")[-2] for path in paths) == ["first", "first", "second", "second"]


def test_all_cut_the_same_crops():
    ours = loader_ours.threads(6, 3, 64)
    ours.run(6)
    alone = loader_decoder.decoder(6, 3, 64)
    alone.run(6)
    assert contest.apart(ours.outcome(), alone.outcome()) == 0
    crops = photographs.read_crops(6)
    with Image.open(crops.paths[0]) as image:
        seen = np.asarray(image.crop(crops.boxes[0].tolist()).resize((64, 64), Image.Resampling.BILINEAR))[None]
    of_first = ours.outcome()[4 : 4 + 4 * 4 * 3]
    assert 0 < contest.apart(photographs.means(seen)[4:], of_first) < loader.TOLERANCE


def test_weights_of_a_detector_have_background_before_all_classes():
    bias, scale = "head.classification_head.module_list.0.bias", "backbone.scale_weight"
    weight_files.write("some", {bias: (4 * 91,), "a.weight": (8, 4, 3, 3), scale: (512,)}, gain=2.0)
    found = weight_files.read("some")
    assert found[bias].reshape(4, 91).mean(0).argmax() == 0
    assert found["a.weight"].std() == pytest.approx(2 / np.sqrt(36), rel=0.1)
    assert found[scale].mean() == pytest.approx(20, rel=0.1)


@pytest.mark.benchmark
@pytest.mark.parametrize("name", ["end_to_end", "inference", "loader"])
def test_a_benchmark_runs_small(name, capsys):
    assert run.main([name, "--small"]) == 0
    assert "ours" in capsys.readouterr().out
