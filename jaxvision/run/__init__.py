"""A run on disk and on devices, as library functions: no command line in any signature.

    from jaxvision import run

    run.train(experiment, "runs/mine")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxvision.run.training import train

__all__ = ["train"]
_MODULES = {"train": "training"}


def __getattr__(name: str) -> Any:
    """The function, imported when it is first asked for: a face of a command imports its parser alone."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
