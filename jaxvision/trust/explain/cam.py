"""Maps by the output of a layer and the gradient of the score for it, see `layers`; negative values are cut to 0."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvision.trust.explain.layers import Maps

Combine = Callable[[Float[Array, "b y x c"], Float[Array, "b y x c"]], Float[Array, "b y x"]]
"""`(output, gradient) -> map` of a layer."""


def grad_cam(output: Float[Array, "b y x c"], gradient: Float[Array, "b y x c"]) -> Float[Array, "b y x"]:
    """Grad-CAM: channels weighted by the mean of their gradient (arXiv:1610.02391)."""
    return jax.nn.relu((output * gradient.mean((1, 2), keepdims=True)).sum(-1))


def grad_cam_plus_plus(output: Float[Array, "b y x c"], gradient: Float[Array, "b y x c"]) -> Float[Array, "b y x"]:
    """Grad-CAM++: each cell of a channel counts by equation 19 of arXiv:1710.11063, for the raw score."""
    square, epsilon = gradient**2, 1e-6
    divisor = 2 * square + output.sum((1, 2), keepdims=True) * square * gradient + epsilon
    share_of_cell = jnp.where(gradient != 0, square / divisor, 0)
    weights = (jax.nn.relu(gradient) * share_of_cell).sum((1, 2), keepdims=True)
    return jax.nn.relu((output * weights).sum(-1))


def odam(output: Float[Array, "b y x c"], gradient: Float[Array, "b y x c"]) -> Float[Array, "b y x"]:
    """ODAM: output times gradient, cell by cell, so that the map is of one object (arXiv:2304.06354)."""
    return jax.nn.relu((output * gradient).sum(-1))


def on_canvas(combine: Combine, outputs: Maps, gradients: Maps, shape: tuple[int, int]) -> Float[Array, "b h w"]:
    """The maps of a layer resized to the canvas (bilinear), added up where it puts out several."""
    found = [combine(*each) for each in zip(outputs, gradients, strict=True)]
    return jnp.stack([jax.image.resize(x, (len(x), *shape), "bilinear") for x in found]).sum(0)
