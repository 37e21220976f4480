"""TensorFlow as a servant of the host: imported when first needed, quiet, and kept off the accelerators."""

import functools
import logging
import os
from typing import Any

from jaxvision.errors import DataError

logger = logging.getLogger(__name__)
INSTALL = "pip install 'jaxvision[tfds]'"
_loaded: Any = None


@functools.cache
def tensorflow() -> Any:
    """The `tensorflow` module, imported on the first call (some seconds), with no GPU visible to it.

    Raises DataError, with the command that installs it, if it is not there. Silences its start-up messages unless
    `TF_CPP_MIN_LOG_LEVEL` and `TF_ENABLE_ONEDNN_OPTS` are already set.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # else it logs that they are on
    try:
        import tensorflow as tf
    except ImportError as error:
        raise DataError(f"this needs TensorFlow, which is not installed: {INSTALL}") from error

    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError as error:
        logger.warning("TensorFlow was already running when jaxvision first used it; it may hold GPU memory: %s", error)
    global _loaded
    _loaded = tf
    return tf


def tensorflow_datasets() -> Any:
    """The `tensorflow_datasets` module. Raises DataError, with the command that installs it, if it is not there."""
    tensorflow()
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise DataError(f"this needs TensorFlow Datasets, which is not installed: {INSTALL} ({error})") from error
    return tensorflow_datasets


def loaded() -> Any:
    """The `tensorflow` module if `tensorflow()` has been called in this process, else None."""
    return _loaded
