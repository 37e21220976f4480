"""Layers of a network, by path: their outputs, and the gradient of a score for them, without a change to the network.

`flax.linen.intercept_methods` hands over the output of every module while the score is computed, and a zero is added to that
of the layer: the gradient of the zero is the output's.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from jaxvision.errors import ConfigError, amount, nearest
from jaxvision.trust.explain.scores import Score, partial

Maps = list[Float[Array, "b _ _ _"]]
"""Maps that a layer puts out: of all its calls, where it is called several times, as a head that levels have in common."""


def outputs(score: Callable[[Any], Any], images: Float[Array, "b h w c"]) -> dict[str, list[tuple[int, ...]]]:
    """The shapes of the maps that each layer puts out for such images, by its path (`backbone/stage4_block2`).

    In the order in which the layers end: a block stands behind what is inside it. Nothing is computed.
    """
    leaves, structure = jax.tree.flatten(partial(score))
    shapes = tuple(jax.eval_shape(lambda: leaves))
    return {path: list(each) for path, each in _outputs(structure, shapes, jax.typeof(images)).items()}


@functools.lru_cache(maxsize=16)
def _outputs(structure: Any, leaves: tuple[jax.ShapeDtypeStruct, ...], images: Any) -> dict[str, list[tuple[int, ...]]]:
    """The shapes for a score of this structure and leaves of these shapes: another image traces nothing."""
    found: dict[str, list[tuple[int, ...]]] = {}

    def look(path: str, output: Any) -> Any:
        shapes = [x.shape for x in _maps(output, images.shape[0])]
        if shapes:
            found[path] = found.pop(path, []) + shapes
        return output

    with nn.intercept_methods(_interceptor(look)):
        score = jax.tree.unflatten(structure, leaves)
        jax.eval_shape(lambda score, x: score(x), score, jax.ShapeDtypeStruct(images.shape, images.dtype))
    return found


def last(found: dict[str, list[tuple[int, ...]]], several: bool = False) -> str:
    """The layer to look at unless one is named: the last with one map; or with several, as a pyramid, for a detector.

    Raises:
      ConfigError: if the network has no layer with a map.
    """
    small = {path: shapes for path, shapes in found.items() if all(min(shape[1:3]) > 1 for shape in shapes)}
    if not small:
        raise ConfigError("the network has no layer with a map of more than one cell; a method without --layer= may do")
    pyramids = [path for path, shapes in found.items() if len(shapes) > 1 and path.count("/") < 2]
    if several and pyramids:
        return _trunk(pyramids)
    return [path for path, shapes in small.items() if len(shapes) == 1 or several][-1] if small else ""


def _trunk(pyramids: Sequence[str]) -> str:
    """The pyramid on which the heads stand: heads, called once a level, have names of what they predict."""
    named = [p for p in pyramids if any(word in p for word in ("features", "fpn", "neck", "pyramid", "backbone"))]
    return (named or list(pyramids))[-1]


def check(path: str, found: dict[str, list[tuple[int, ...]]]) -> str:
    """The path, if a layer with a map has it.

    Raises:
      ConfigError: if none has; the message tells the nearest names.
    """
    if path not in found:
        raise ConfigError(
            f"there is no layer {path!r} among {amount(len(found), 'layer')} with a map{nearest(path, list(found))}"
        )
    return path


def with_gradients(score: Score, images: Float[Array, "b h w c"], path: str) -> tuple[Maps, Maps]:
    """The maps that a layer puts out, and the gradient of each image's score for them.

    Raises:
      ConfigError: if there is no such layer.
    """
    check(path, found := outputs(score, images))
    gradients, maps = _tapped(partial(score), images, path, tuple(found[path]))
    return maps, gradients


@functools.partial(jax.jit, static_argnames=("path", "shapes"))
def _tapped(
    score: Partial, images: Float[Array, "b h w c"], path: str, shapes: tuple[tuple[int, ...], ...]
) -> tuple[Maps, Maps]:
    """The gradient for the layer's maps, and these."""

    def tapped(zeros: Maps) -> tuple[Array, Maps]:
        left, seen = list(zeros), []

        def add(name: str, output: Any) -> Any:
            if name != path:
                return output
            seen.extend(_maps(output, len(images)))
            return jax.tree.map(lambda x: x + left.pop(0).astype(x.dtype) if _is_map(x, len(images)) else x, output)

        with nn.intercept_methods(_interceptor(add)):
            total = score(images).sum()
        return total, seen

    return jax.grad(tapped, has_aux=True)([jnp.zeros(shape, images.dtype) for shape in shapes])


def _interceptor(hear: Callable[[str, Any], Any]) -> Callable:
    def intercept(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        output = call(*args, **kwargs)
        return hear("/".join(context.module.path), output) if context.method_name == "__call__" else output

    return intercept


def _maps(output: Any, images: int) -> Maps:
    return [x for x in jax.tree.leaves(output) if _is_map(x, images)]


def _is_map(x: Any, images: int) -> bool:
    return hasattr(x, "ndim") and x.ndim == 4 and x.shape[0] == images and jnp.issubdtype(x.dtype, jnp.floating)
