"""Every experiment file, and how the tests build one."""

from pathlib import Path

import pytest

from jaxvision.run import devices
from jaxvision.run.config import as_json, configure, load

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "experiments").glob("*.py")) + sorted((ROOT / "experiments" / "finetune").glob("*.py"))


def files(slow=()):
    return [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem in slow)) for path in FILES]


def build(path, overrides, folder):
    module = load(path)
    config = module.get_config()
    if "train_dir" in config:
        overrides = {**overrides, "train_dir": str(folder)}
    config = configure(config, overrides)
    devices.resolve_precision(config)
    assert as_json(config)
    return module.build(config)
