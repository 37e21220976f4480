"""The benchmarks that begin with JPEG files: what the files are like, and that all programs cut the same crops from them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.benchmarks import run
from experiments.benchmarks.speed import contest, loader, loader_decoder, loader_ours, photographs
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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["loader"])
def test_a_benchmark_runs_small(name, capsys):
    assert run.main([name, "--small"]) == 0
    assert "ours" in capsys.readouterr().out
