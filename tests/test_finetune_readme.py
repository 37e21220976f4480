"""The README's lines for fine-tuning a pretrained ResNet-50 and predicting with it, on a generated folder.

They run as they stand but for smaller arguments and a file of random weights under torchvision's names.
"""

import csv
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization, traverse_util
from PIL import Image

from jaxvision.nn.resnet import resnet50
from jaxvision.pretrained import export, torchvision
from jaxvision.run import devices, restore

ROOT = Path(__file__).parent.parent
SMALL = ["width=8", "hidden=16", "image_size=64", "batch_size=8", "steps=6", "method=features"]


def readme_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```bash\n([^`]*finetune/torchvision_folder\.py[^`]*)```", text)
    assert len(block.splitlines()) < 10
    return [shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def random_weights(path):
    """A ResNet-50 of an eighth of the width, as torchvision would save it."""
    network = resnet50(width=8)
    variables = network.init(jax.random.key(3), jnp.zeros((1, 64, 64, 3)), train=False)
    export.torch_safetensors(torchvision.resnet_sources, variables, path)
    return variables


def photographs(folder, count=10):
    """Two classes that a colour tells apart."""
    rng = np.random.default_rng(0)
    for name, channel in (("cat", 0), ("dog", 2)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 120, (70, 90, 3), dtype=np.uint8)
            pixels[..., channel] += 100
            Image.fromarray(pixels).save(folder / name / f"{number}.jpg")


@pytest.mark.slow
def test_the_lines_of_the_readme_fine_tune_and_predict(tmp_path):
    train, predict = readme_commands()
    weights = next(part.partition("=")[2] for part in train if part.startswith("--config.weights="))
    given = random_weights(tmp_path / weights)
    photographs(tmp_path / next(part.partition("=")[2] for part in train if part.startswith("--config.train_dir=")))
    photographs(tmp_path / "new_images", count=2)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    small = [f"--config.{each}" for each in SMALL]
    for command in ([*train, *small], predict):
        assert command[0] == "python"
        subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, check=True, timeout=600)
    run = restore.restore(next(tmp_path.glob("runs/*")))
    state = restore.load_checkpoint(run, "latest", devices.device_mesh()).state
    kept = {**state.collections["frozen"]["backbone"]}
    expected = given["params"]["backbone"]
    scales = {name: tree for name, tree in traverse_util.flatten_dict(kept, sep="/").items() if name.endswith("kernel")}
    before = traverse_util.flatten_dict(serialization.to_state_dict(expected), sep="/")
    assert scales.keys() == {name for name in before if name.endswith("kernel")}
    for name, kernel in scales.items():
        np.testing.assert_array_equal(kernel, before[name])  # frozen: bit for bit what the file had
    for name, statistic in traverse_util.flatten_dict(state.collections["batch_stats"]["backbone"], sep="/").items():
        source = given["batch_stats"]["backbone"] if name.endswith(("mean", "var")) else expected
        np.testing.assert_array_equal(statistic, traverse_util.flatten_dict(source, sep="/")[name])
    assert set(state.params) == {"head"}
    moments = [x for x in jax.tree.leaves(state.opt_state) if getattr(x, "ndim", 0)]
    assert sum(x.size for x in moments) == 2 * sum(x.size for x in jax.tree.leaves(state.params))
    with next(tmp_path.glob("*.csv")).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert all({"cat", "dog"} <= set(row.values()) for row in rows)
