"""Greedy NMS as an operator of a traced program, and as ONNX has it: NonMaxSuppression, per class, strictly greater."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import batching
from jaxtyping import Array, Bool, Float, Int

from jaxvision.ops.nms import Greedy

LOWEST = -1e38
"""Scores of boxes that are not of a class are below it, which are left out."""

kept_p = Primitive("kept_by_nms")
"""`boxes *b n 4`, `scores *b k n` by class -> 1 where a box is kept in any class, else 0, `*b n`, float32."""


def operator(labels: int) -> Greedy:
    """`ops.nms.nms` as that operator; labels are below this number."""

    def nms(
        boxes: Float[Array, "n 4"],
        scores: Float[Array, "n"],
        valid: Bool[Array, "n"],
        threshold: float | int,
        of: Int[Array, "n"] | None,
    ) -> Bool[Array, "n"]:
        scores = jnp.where(valid, scores.astype(jnp.float32), 10 * LOWEST / 3)[None]
        if of is not None:
            scores = jnp.where(jnp.arange(labels, dtype=of.dtype)[:, None] == of[None], scores, 10 * LOWEST / 3)
        kept = kept_p.bind(boxes.astype(jnp.float32), scores, threshold=float(threshold))
        return (kept > 0) & valid

    return nms


@kept_p.def_abstract_eval
def _(boxes: Any, scores: Any, *, threshold: float) -> Any:
    return ShapedArray(boxes.shape[:-1], np.dtype(np.float32))


def _batched(arguments: Any, axes: Any, *, threshold: float) -> tuple[Array, int]:
    size = next(x.shape[axis] for x, axis in zip(arguments, axes, strict=True) if axis is not None)
    moved = [
        jnp.broadcast_to(x[None], (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(arguments, axes, strict=True)
    ]
    return kept_p.bind(*moved, threshold=threshold), 0


batching.primitive_batchers[kept_p] = _batched


def register() -> None:
    """Tells jax2onnx how the operator is written in ONNX."""
    import onnx_ir
    from jax2onnx.plugins.plugin_system import PrimitiveLeafPlugin, register_primitive

    def typed(value: Any, kind: Any, shape: tuple[int | None, ...]) -> Any:
        value.type, value.shape = onnx_ir.TensorType(kind), onnx_ir.Shape(shape)
        return value

    class KeptByNMS(PrimitiveLeafPlugin):
        """NonMaxSuppression, whose list of the boxes that it keeps is written into zeros."""

        def lower(self, ctx: Any, eqn: Any) -> None:
            """Adds the nodes for one operator."""
            boxes, scores = (ctx.get_value_for_var(variable) for variable in eqn.invars)
            (out,), shape, classes = eqn.outvars, eqn.outvars[0].aval.shape, eqn.invars[1].aval.shape[-2]
            rows, count = math.prod(shape[:-1]), shape[-1]
            named = lambda name: {"_outputs": [ctx.fresh_name(name)]}
            integers, floats = onnx_ir.DataType.INT64, onnx_ir.DataType.FLOAT

            def constant(name: str, values: Any, kind: Any) -> Any:
                return ctx.builder.add_initializer_from_array(name=ctx.fresh_name(name), array=np.asarray(values, kind))

            flat = (
                constant("nms_shape", (rows, count, 4), np.int64),
                constant("nms_shape", (rows, classes, count), np.int64),
            )
            boxes = typed(ctx.builder.Reshape(boxes, flat[0], **named("nms_boxes")), floats, (rows, count, 4))
            scores = typed(ctx.builder.Reshape(scores, flat[1], **named("nms_scores")), floats, (rows, classes, count))
            limits = (
                constant("nms_most", [count], np.int64),
                constant("nms_iou", [eqn.params["threshold"]], np.float32),
                constant("nms_lowest", [LOWEST], np.float32),
            )
            found = ctx.builder.NonMaxSuppression(boxes, scores, *limits, **named("nms_kept"))
            typed(found, integers, (None, 3))
            columns = constant("nms_columns", (0, 2), np.int64)
            places = typed(ctx.builder.Gather(found, columns, axis=1, **named("nms_places")), integers, (None, 2))
            first = ctx.builder.Gather(found, constant("nms_column", 0, np.int64), axis=1, **named("nms_rows"))
            zero = constant("nms_zero", 0, np.int64)
            none = ctx.builder.Mul(typed(first, integers, (None,)), zero, **named("nms_none"))
            ones = ctx.builder.Add(
                typed(none, integers, (None,)), constant("nms_one", 1, np.int64), **named("nms_ones")
            )
            ones = ctx.builder.Cast(typed(ones, integers, (None,)), to=int(floats.value), **named("nms_ones"))
            zeros = constant("nms_zeros", np.zeros((rows, count)), np.float32)
            mask = ctx.builder.ScatterND(zeros, places, typed(ones, floats, (None,)), **named("nms_mask"))
            final = constant("nms_shape", shape, np.int64)
            mask = ctx.builder.Reshape(typed(mask, floats, (rows, count)), final, **named("nms_mask"))
            ctx.bind_value_for_var(out, typed(mask, floats, shape))

    register_primitive(jaxpr_primitive=kept_p.name)(KeptByNMS)
