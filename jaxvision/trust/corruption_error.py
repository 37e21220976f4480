"""Figures of robustness: mean corruption error, mean performance under corruption, flips of the prediction.

Errors and performances are fractions, by the name of the corruption, a value for each severity from 1 to 5.
"""

from collections.abc import Mapping, Sequence

import numpy as np

Table = Mapping[str, Sequence[float]]

ALEXNET: Mapping[str, float] = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""AlexNet's error on ImageNet-C, the mean of five severities (github.com/hendrycks/robustness)."""
ALEXNET_CLEAN = 0.435
"""AlexNet's error on ImageNet's validation images (arXiv:1903.12261, table 1)."""


def corruption_error(errors: Sequence[float], baseline: float) -> float:
    """CE: the mean error of the severities, as a multiple of the baseline's (arXiv:1903.12261, section 3)."""
    return float(np.mean(errors)) / baseline


def relative_corruption_error(errors: Sequence[float], clean: float, baseline: float, baseline_clean: float) -> float:
    """Relative CE: how much worse than on clean images, as a multiple of how much worse the baseline is."""
    return (float(np.mean(errors)) - clean) / (baseline - baseline_clean)


def mean_corruption_error(errors: Table, baseline: Mapping[str, float] = ALEXNET) -> float:
    """mCE: the mean CE of the corruptions that have a baseline; NaN without one."""
    ratios = [corruption_error(each, baseline[name]) for name, each in errors.items() if name in baseline]
    return float(np.mean(ratios)) if ratios else float("nan")


def relative_mean_corruption_error(
    errors: Table, clean: float, baseline: Mapping[str, float] = ALEXNET, baseline_clean: float = ALEXNET_CLEAN
) -> float:
    """Relative mCE: the mean relative CE of the corruptions that have a baseline; NaN without one."""
    ratios = [
        relative_corruption_error(each, clean, baseline[name], baseline_clean)
        for name, each in errors.items()
        if name in baseline
    ]
    return float(np.mean(ratios)) if ratios else float("nan")


def mean_performance(performances: Table) -> float:
    """mPC: the mean over corruptions of the mean over severities of AP, IoU or the like (arXiv:1907.07484, section 3.3)."""
    return float(np.mean([np.mean(each) for each in performances.values()])) if performances else float("nan")


def relative_performance(performances: Table, clean: float) -> float:
    """rPC: mPC as a fraction of the performance on clean images; NaN where that is 0."""
    return mean_performance(performances) / clean if clean else float("nan")


def flip_rate(predictions: Sequence[np.ndarray]) -> float:
    """How often a prediction changes from one to the next: between neighbouring severities, or frames of a video.

    Args:
      predictions: classes, or values of any kind, of the same examples; at least two.

    Raises:
      ValueError: fewer than two, or of different shapes.
    """
    shapes = {np.shape(each) for each in predictions}
    if len(predictions) < 2 or len(shapes) != 1:
        raise ValueError(
            f"flip_rate needs two or more predictions of one shape, got {len(predictions)}: {sorted(shapes)}"
        )
    stacked = np.stack([np.asarray(each) for each in predictions])
    return float(np.mean(stacked[1:] != stacked[:-1]))
