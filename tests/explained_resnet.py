"""Our maps of torchvision's ResNet-18, to be compared with those of captum and grad-cam. Not a test itself."""

import jax
import jax.numpy as jnp
import numpy as np
from parity_networks import random_images, random_weights, spec_of

from jaxvision.nn import resnet
from jaxvision.pretrained import torchvision
from jaxvision.tasks.classification import classification
from jaxvision.trust.explain import cam, gradients, layers, masking, scores
from jaxvision.types import Batch


def explained(shapes, seed, shape):
    """Maps under the names of `parity_explain.reference`; in float64, pixels as they are."""
    network = resnet.resnet18(10, dtype=jnp.float64)
    variables = torchvision.resnet(random_weights(shapes, seed), spec_of(network, shape))
    variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), variables)
    images = jnp.asarray(random_images(shape, 10, seed + 1)[0])
    size, index = np.tile(np.int32([shape[1:3]]), (shape[0], 1)), np.arange(shape[0])
    batch = Batch(images, size, size, index, index >= 0)
    task = classification(network, mean=0.0, std=1.0, dtype=jnp.float64)
    score = scores.of_class(task, variables, batch, 3)
    hidden = [masking.occlusion(score, image, 9, 6, 0.25) for image in images]
    found = {
        "integrated_gradients": gradients.integrated_gradients(score, images, 0.25, 20),
        "occlusion": np.stack(hidden),
    }
    for stage in (3, 4):
        seen = layers.with_gradients(score, images, f"backbone/stage{stage}_block2")
        found[f"grad_cam{stage}"] = cam.grad_cam(seen[0][0], seen[1][0])
        found[f"grad_cam_plus_plus{stage}"] = cam.grad_cam_plus_plus(seen[0][0], seen[1][0])
    return found
