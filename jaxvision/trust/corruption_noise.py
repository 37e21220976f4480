"""Corruptions by noise: of the sensor, of counted photons, of broken pixels."""

import numpy as np

from jaxvision.trust.corruption import Corruption, Pixels, unit


def _normal(rng: np.random.Generator, image: Pixels, deviation: float) -> np.ndarray:
    del deviation
    return rng.normal(size=image.shape)


def _add(image: Pixels, deviation: float, normal: np.ndarray) -> np.ndarray:
    return np.clip(unit(image) + deviation * normal, 0, 1) * 255


def _multiply(image: Pixels, deviation: float, normal: np.ndarray) -> np.ndarray:
    return np.clip(unit(image) * (1 + deviation * normal), 0, 1) * 255


def _photons(rng: np.random.Generator, image: Pixels, photons: float) -> np.ndarray:
    return rng.poisson(unit(image) * photons)


def _counted(image: Pixels, photons: float, counts: np.ndarray) -> np.ndarray:
    del image
    return np.clip(counts / photons, 0, 1) * 255


def _chances(rng: np.random.Generator, image: Pixels, amount: float) -> tuple[np.ndarray, np.ndarray]:
    """Two numbers from 0 to 1 for each value: whether it breaks, and whether it is then white or black."""
    del amount
    return rng.random(image.shape), rng.random(image.shape)


def _broken(image: Pixels, amount: float, chances: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    breaks, white = chances[0] <= amount, chances[1] <= 0.5
    return np.where(breaks, np.where(white, 255, 0), image)


gaussian_noise = Corruption(_normal, _add, (0.08, 0.12, 0.18, 0.26, 0.38), (0.04, 0.06, 0.08, 0.09, 0.1))
shot_noise = Corruption(_photons, _counted, (60, 25, 12, 5, 3), (500, 250, 100, 75, 50))
impulse_noise = Corruption(_chances, _broken, (0.03, 0.06, 0.09, 0.17, 0.27), (0.01, 0.02, 0.03, 0.05, 0.07))
speckle_noise = Corruption(_normal, _multiply, (0.15, 0.2, 0.35, 0.45, 0.6), (0.06, 0.1, 0.12, 0.16, 0.2))
