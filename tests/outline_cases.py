"""Masks of shapes that are drawn at any place and turn, each pixel on whose centre lies inside."""

import numpy as np

NAMES = ("circle", "ellipse", "triangle", "rectangle", "pentagon", "hexagon", "octagon", "star", "blob")
TOLD = {
    **{name: (name, None) for name in ("circle", "ellipse")},
    **{"triangle": ("triangle", 3), "rectangle": ("rectangle", 4)},
    **{"pentagon": ("polygon", 5), "hexagon": ("polygon", 6), "octagon": ("polygon", 8)},
    **{"star": ("irregular", None), "blob": ("irregular", None)},
}
"""Shape and corners of each."""


def grid(radius, centre=(0.0, 0.0)):
    """x and y of the centres of pixels around a point that is `centre` away from the middle of the canvas."""
    side = int(2 * radius) + 12
    y, x = np.mgrid[:side, :side] + 0.5 - side / 2
    return x - centre[0], y - centre[1]


def inside(corners, x, y):
    """Whether points lie in a polygon, by the number of its sides to their right."""
    found = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            found ^= ((ay > y) != (by > y)) & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
    return found


def on_circle(angles, radii):
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)


def ellipse(x, y, long, short, turn):
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    return (along / long) ** 2 + (across / short) ** 2 <= 1


def corners_of(name, radius, turn, rng):
    """Corners of what has some."""
    if name == "rectangle":
        long, short = radius * on_circle(np.array([np.arctan(1 / rng.uniform(1, 3))]), np.ones(1))[0]
        box = np.array([[-long, -short], [long, -short], [long, short], [-long, short]])
        return box @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    if name == "triangle":
        gaps = rng.dirichlet(np.ones(3)) * (2 * np.pi - 3) + 1  # no corner is seen below half a radian
        return on_circle(turn + np.cumsum(gaps), radius)
    if name == "star":
        points = int(rng.integers(4, 8))
        radii = np.where(np.arange(2 * points) % 2, rng.uniform(0.35, 0.6), 1) * radius
        return on_circle(turn + np.arange(2 * points) * np.pi / points, radii)
    count = {"pentagon": 5, "hexagon": 6, "octagon": 8}[name]
    return on_circle(turn + np.arange(count) * 2 * np.pi / count, radius)


def draw(name, radius, rng):
    """The mask of a shape of this radius: half of the longest way through it, or about so."""
    turn = rng.uniform(0, 2 * np.pi)
    x, y = grid(1.5 * radius, rng.uniform(-0.5, 0.5, 2))
    if name == "circle":
        return ellipse(x, y, radius, radius, 0)
    if name == "ellipse":
        return ellipse(x, y, radius, radius / rng.uniform(1.3, min(3, radius / 5)), turn)
    if name == "blob":
        waves = np.arange(2, 6)
        heights = rng.normal(size=4) / waves
        heights *= rng.uniform(0.25, 0.4) / np.abs(heights).sum()
        angle = np.arctan2(y, x)[..., None]
        return np.hypot(x, y) <= radius * (1 + (heights * np.cos(waves * angle + rng.uniform(0, 6.3, 4))).sum(-1))
    return inside(corners_of(name, radius, turn, rng), x, y)


def drawn(count, seed):
    """Names and masks, radii from 10 to 100 pixels, as many small ones as large ones by their logarithm."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        name = NAMES[number % len(NAMES)]
        yield name, draw(name, float(np.exp(rng.uniform(np.log(10), np.log(100)))), rng)
