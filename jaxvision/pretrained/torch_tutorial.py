"""The weights of PyTorch's CIFAR-10 tutorial network for our `TutorialCNN`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxvision.pretrained.strict import Source, fill
from jaxvision.pretrained.torch_layout import conv_kernel, dense_kernel, dense_kernel_after_flatten, unchanged
from jaxvision.types import Variables


def tutorial_cnn(state_dict: Mapping[str, np.ndarray], variables: Variables) -> dict[str, Any]:
    """Variables of a `TutorialCNN` for 32x32 images with the tutorial's weights, named as there: conv1 ... fc3.

    Raises:
        ValueError: if names are missing or left over, or shapes differ; it lists them all.
    """
    layers = {
        "conv1": ("conv1", conv_kernel),
        "conv2": ("conv2", conv_kernel),
        "dense1": ("fc1", dense_kernel_after_flatten(16, 5, 5)),
        "dense2": ("fc2", dense_kernel),
        "dense3": ("fc3", dense_kernel),
    }
    kernels = {("params", ours, "kernel"): Source(f"{name}.weight", turn) for ours, (name, turn) in layers.items()}
    biases = {("params", ours, "bias"): Source(f"{name}.bias", unchanged) for ours, (name, _) in layers.items()}
    return fill({**kernels, **biases}, state_dict, variables)
