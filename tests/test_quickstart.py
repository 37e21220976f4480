"""The README's first promise, kept on the bundled data."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from jaxvision import predict

QUICKSTART = Path(__file__).parent.parent / "experiments" / "quickstart.py"


@pytest.mark.slow
def test_the_quickstart_reaches_88_percent(tmp_path, optimised):
    command = ["-m", "jaxvision.main", f"--config={QUICKSTART}", f"--workdir={tmp_path}/run"]
    subprocess.run([sys.executable, *command], check=True, env=optimised)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["test/accuracy"] >= 0.88

    (tmp_path / "my_images").mkdir()
    Image.linear_gradient("L").resize((90, 108)).save(tmp_path / "my_images" / "any.jpg")
    paths = [str(tmp_path / "my_images"), f"--output={tmp_path}/predictions.csv"]
    assert predict.main([f"--workdir={tmp_path}/run", *paths]) == 0
    header, row = (tmp_path / "predictions.csv").read_text().splitlines()
    assert header.startswith("file,frame,class_1,probability_1")
    assert "any.jpg" in row
