"""Colours of classes and of objects of one image, as many as there are."""

import colorsys
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from jaxvision.draw.style import BLUE, GREEN, ORANGE, PURPLE, VERMILLION

COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE)
"""The first colours."""
BACKGROUND = "background"
"""Name of a class that is left as it is on pictures, and black in palettes."""
BLACK = "#000000"
TONES = ((0.75, 0.85), (0.5, 0.65), (0.95, 0.55), (0.6, 0.75))
"""Saturations and values of colours beyond the first five, in turn."""
GOLDEN = (5**0.5 - 1) / 2


def distinct(number: int) -> str:
    """The colour of this number: the first five are told apart by colour-blind readers, any two in a row by all."""
    if number < len(COLOURS):
        return COLOURS[number]
    saturation, value = TONES[number % len(TONES)]
    levels = colorsys.hsv_to_rgb((number * GOLDEN) % 1, saturation, value)
    return "#" + "".join(f"{round(255 * level):02X}" for level in levels)


def class_colour(label: int, name: str) -> str:
    """The colour of a class: that of its number, or black if it is called background."""
    return BLACK if name.strip("_ ").lower() == BACKGROUND else distinct(label)


def class_colours(classes: Sequence[str]) -> list[str]:
    """The colour of each class."""
    return [class_colour(label, name) for label, name in enumerate(classes)]


def levels(colours: Sequence[str]) -> UInt8[np.ndarray, "n 3"]:
    """Red, green and blue of each colour, 0-255."""
    from matplotlib.colors import to_rgb

    return np.rint(255 * np.array([to_rgb(colour) for colour in colours])).astype(np.uint8).reshape(-1, 3)
