"""TensorFlow as a servant of the host: imported when first needed, quiet, and kept off the accelerators."""

import functools
import logging
import os
from typing import Any

logger = logging.getLogger(__name__)
_loaded: Any = None


@functools.cache
def tensorflow() -> Any:
    """The `tensorflow` module, imported on the first call (some seconds), with no GPU visible to it.

    Silences its start-up messages unless `TF_CPP_MIN_LOG_LEVEL` and `TF_ENABLE_ONEDNN_OPTS` are already set.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # else it tells that they are on
    import tensorflow as tf

    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError as error:
        logger.warning("TensorFlow was already running when jaxvision first used it; it may hold GPU memory: %s", error)
    global _loaded
    _loaded = tf
    return tf


def loaded() -> Any:
    """The `tensorflow` module if `tensorflow()` has been called in this process, else None."""
    return _loaded
