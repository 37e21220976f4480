"""Maps of captum and grad-cam on torchvision's ResNet-18, in float64. Imports torch: for parity runs alone."""

import numpy as np
import torch
import torchvision
from captum.attr import IntegratedGradients, Occlusion
from parity_networks import random_images, random_weights, shapes_torch
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus

CLASSES, STEPS, WINDOW, STRIDE, BASELINE = 10, 20, 9, 6, 0.25


def reference(seed, shape):
    """The maps before resizing, by method; for class 3."""
    model = torchvision.models.resnet18(num_classes=CLASSES).double().eval()
    weights = random_weights(shapes_torch(model), seed)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, strict=False)
    images, _ = random_images(shape, CLASSES, seed + 1)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    integrated = IntegratedGradients(model).attribute(x, BASELINE, target=3, n_steps=STEPS)
    occluded = Occlusion(model).attribute(
        x, (3, WINDOW, WINDOW), strides=(3, STRIDE, STRIDE), target=3, baselines=BASELINE
    )
    found = {
        "integrated_gradients": integrated.detach().numpy().transpose(0, 2, 3, 1),
        "occlusion": occluded.detach().numpy()[:, 0],
    }
    for name, method in (("grad_cam", GradCAM), ("grad_cam_plus_plus", GradCAMPlusPlus)):
        for stage in (3, 4):
            found[f"{name}{stage}"] = _before_resizing(method, model, getattr(model, f"layer{stage}")[-1], x)
    return found


def _before_resizing(method, model, layer, x):
    with method(model=model, target_layers=[layer]) as cam:
        score = cam.activations_and_grads(x)[:, 3].sum()
        model.zero_grad()
        score.backward()
        seen = cam.activations_and_grads
        output, gradient = (each[0].detach().numpy() for each in (seen.activations, seen.gradients))
        return np.maximum(cam.get_cam_image(x, layer, None, output, gradient), 0)
