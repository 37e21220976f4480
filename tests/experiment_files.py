"""Every experiment file, and how the tests build one."""

from pathlib import Path

import pytest

from jaxvision import experiment, parallel

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "experiments").glob("*.py")) + sorted((ROOT / "experiments" / "finetune").glob("*.py"))


def files(slow=()):
    return [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem in slow)) for path in FILES]


def build(path, overrides, folder):
    module = experiment.load(path)
    config = module.get_config()
    if "train_dir" in config:
        overrides = {**overrides, "train_dir": str(folder)}
    config = experiment.configure(config, overrides)
    parallel.resolve_precision(config)
    assert experiment.as_json(config)
    return module.build(config)
