"""The README's first promise, kept on the bundled data."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

QUICKSTART = Path(__file__).parent.parent / "experiments" / "quickstart.py"


@pytest.mark.slow
def test_the_quickstart_reaches_88_percent(tmp_path):
    command = [sys.executable, "-m", "jaxvision.main", f"--config={QUICKSTART}", f"--workdir={tmp_path}/run"]
    subprocess.run(command, check=True, timeout=1200)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["test/accuracy"] >= 0.88
