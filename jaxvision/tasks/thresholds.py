"""A threshold for every class, in a task: the class with the largest probability / threshold is predicted."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jaxvision.errors import amount
from jaxvision.types import Batch, ClassScores, Task, Variables


def with_thresholds(task: Task, thresholds: Sequence[float | int] | np.ndarray) -> Task:
    """The classification task, its predicted logits less the logarithms of the thresholds; trained as it was.

    Thresholds are above 0, one a class, and only their ratios count: those of `metrics.thresholds.tune`; or the frequencies
    of the classes in the training data, which is logit adjustment after training (arXiv:2007.07314): the probabilities
    are then those under a uniform prior.

    Raises:
      ValueError: thresholds that are not finite or not above 0; in `predict`, another number of them than classes.
    """
    values = np.asarray(thresholds, np.float64)
    if values.ndim != 1 or not np.isfinite(values).all() or (values <= 0).any():
        raise ValueError(f"thresholds must be one row of finite numbers above 0, got {values}")

    def predict(variables: Variables, batch: Batch) -> ClassScores:
        logits = task.predict(variables, batch).logits
        if logits.shape[-1] != len(values):
            raise ValueError(f"{amount(len(values), 'threshold')} for logits of {amount(logits.shape[-1], 'class')}")
        return ClassScores(logits - jnp.asarray(np.log(values), logits.dtype)[None, :])

    return task._replace(predict=predict)
