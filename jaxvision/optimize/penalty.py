"""L1 and L2 penalties: terms of the loss that grow with the weights.

They are part of what is minimised, so they are part of the logged `loss`; each is logged by its own name, too, and the
loss without them is the difference. Their gradient goes through the optimizer, whose scaling by past gradients (Adam)
weakens it where gradients are large; `weight_decay` of `optax.adamw` and its like is decoupled from that (arXiv:1711.05101).
With plain SGD, without momentum or with, an L2 penalty of strength s is `optax.add_decayed_weights(s)` before it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from jaxvision.optimize.groups import kernels
from jaxvision.types import Batch, Key, LossOutput, Params, Scalar, Task, Variables

Mask = Callable[[Params], PyTree]


def l1(task: Task, strength: float, mask: Mask = kernels) -> Task:
    """The task with `strength * sum(|w|)` added to its loss (Goodfellow et al., Deep Learning, section 7.1.2).

    Raises as `l2` does.
    """
    return _penalised(task, "l1", strength, mask, jnp.abs)


def l2(task: Task, strength: float, mask: Mask = kernels) -> Task:
    """The task with `strength / 2 * sum(w ** 2)` added to its loss (Goodfellow et al., Deep Learning, section 7.1.1).

    Args:
      task: whose loss gets the penalty, and a metric `l2`, its value; `example_loss` and `predict` stay.
      strength: factor of the penalty.
      mask: which parameters it counts, `optimize.matching(...)` for others than the kernels. That of frozen ones is a
        constant.

    Raises:
      ValueError: if the strength is negative.
    """
    return _penalised(task, "l2", strength, mask, lambda w: 0.5 * w * w)


def _penalised(task: Task, name: str, strength: float, mask: Mask, of_weight: Callable[[Array], Array]) -> Task:
    if not strength >= 0:
        raise ValueError(f"penalty.{name}: strength is {strength}; it must be at least 0")

    def loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        value, out = task.loss(variables, batch, key)
        params = variables["params"]
        sums = jax.tree.map(lambda w, counts: of_weight(w).sum() if counts else 0.0, params, mask(params))
        penalty = jnp.asarray(strength * sum(jax.tree.leaves(sums)), value.dtype)
        return value + penalty, out.replace(metrics={**out.metrics, name: penalty})

    return task._replace(loss=loss)
