"""A run on disk and on devices, as library functions: no command line in any signature.

from jaxvision import run

run.train(experiment, "runs/mine")
run.evaluate("runs/mine", "best")
model = run.load("runs/mine")  # or published weights: run.load("ssd_mobilenet_v2")
model.predict(["a.jpg", pixels])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxvision.run.evaluation import evaluate
    from jaxvision.run.prediction import load
    from jaxvision.run.training import train

__all__ = ["evaluate", "load", "train"]
_MODULES = {"evaluate": "evaluation", "load": "prediction", "train": "training"}


def __getattr__(name: str) -> Any:
    """The function, imported when it is first asked for: a face of a command imports its parser alone."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
