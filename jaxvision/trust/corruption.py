"""Corruption of one image: random numbers first, then the picture that they make.

Images are `h w c`, uint8, of 1 (grey) or 3 (RGB) channels; what `apply` returns is of the same shape, about
0-255. Random numbers are drawn apart, so that those of another program can be given.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

Pixels = UInt8[np.ndarray, "h w c"]
Draws = Any
Constants = Any


class Corruption(NamedTuple):
    """Corruption by two functions and the constants of each severity from 1 to 5."""

    draw: Callable[[np.random.Generator, Pixels, Constants], Draws]
    """`(generator, image, constants)`: the random numbers."""
    apply: Callable[[Pixels, Constants, Draws], np.ndarray]
    """`(image, constants, draws)`: the corrupted image."""
    imagenet: tuple[Constants, ...]
    """Constants of ImageNet-C (arXiv:1903.12261), as imagecorruptions-imaug 1.1.5 has them."""
    cifar: tuple[Constants, ...]
    """Constants of CIFAR-10-C (hendrycks/robustness, make_cifar_c.py), for images of about 32 pixels."""


def nothing(rng: np.random.Generator, image: Pixels, constants: Constants) -> None:
    """No random numbers: the `draw` of a corruption without chance."""
    del rng, image, constants


def unit(image: Pixels) -> Float[np.ndarray, "h w c"]:
    """The image in float64, 0 to 1."""
    return image / 255.0


GREY = np.asarray([0.2989, 0.587, 0.114])
"""Weights of red, green and blue in a grey image."""


def in_colours_of(image: Pixels, colour: np.ndarray) -> np.ndarray:
    """The colour, its last axis RGB, as it is in an RGB image, or grey as in a grey one."""
    return colour if image.shape[2] == 3 else (colour @ GREY)[..., None]


def add_top_left(to: np.ndarray, layer: np.ndarray) -> None:
    """Adds the layer in place where the two share pixels, their top-left corners on each other."""
    rows, columns = (min(a, b) for a, b in zip(to.shape[:2], layer.shape[:2], strict=True))
    to[:rows, :columns] += layer[:rows, :columns]
