"""Losses of bounding boxes against torch's and torchvision's, and every detector that takes one trains with each."""

import detectors
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from test_ops_boxes import counted, distance_terms

from jaxvision.ops import box_losses


@pytest.mark.parity
@pytest.mark.parametrize("name", ["l1", "smooth_l1", "giou", "diou", "ciou"])
def test_values_and_gradients_are_those_of_torch(float64, name):
    import torch
    import torchvision

    random = np.random.default_rng(0)
    corner = random.uniform(0, 20, (2, 40, 2))
    predicted, truth = np.concatenate([corner, corner + random.uniform(1, 20, (2, 40, 2))], -1)
    offsets, wanted = random.normal(0, 1, (2, 40, 4))
    theirs = {
        "l1": lambda o, b: torch.nn.functional.l1_loss(o, torch.tensor(wanted), reduction="none").sum(-1),
        "smooth_l1": lambda o, b: torch.nn.functional.smooth_l1_loss(
            o, torch.tensor(wanted), reduction="none", beta=0.3
        ).sum(-1),
        "giou": lambda o, b: torchvision.ops.generalized_box_iou_loss(b, torch.tensor(truth)),
        "diou": lambda o, b: torchvision.ops.distance_box_iou_loss(b, torch.tensor(truth)),
        "ciou": lambda o, b: torchvision.ops.complete_box_iou_loss(b, torch.tensor(truth)),
    }[name]
    given = [torch.tensor(x, requires_grad=True) for x in (offsets, predicted)]
    expected = theirs(*given)
    slopes = torch.autograd.grad(expected.sum(), given, allow_unused=True)
    loss = box_losses.smooth_l1(0.3) if name == "smooth_l1" else getattr(box_losses, name)
    ours = lambda o, b: loss(o, jnp.asarray(wanted), b, jnp.asarray(truth))
    assert_allclose(ours(*map(jnp.asarray, (offsets, predicted))), expected.detach().numpy(), rtol=1e-6, atol=1e-7)
    found = jax.grad(lambda *each: ours(*each).sum(), argnums=(0, 1))(jnp.asarray(offsets), jnp.asarray(predicted))
    for mine, slope in zip(found, slopes, strict=True):
        assert_allclose(mine, 0 if slope is None else slope.numpy(), rtol=1e-5, atol=1e-7)


def test_values_follow_their_definitions(float64):
    random = np.random.default_rng(1)
    corner = random.integers(0, 8, (2, 30, 2))
    predicted, truth = np.concatenate([corner, corner + random.integers(1, 8, (2, 30, 2))], -1)
    offsets, wanted = random.normal(0, 1, (2, 30, 4))
    away = np.abs(offsets - wanted)
    pairs = list(zip(predicted, truth, strict=True))
    overlaps = np.array([(*counted(*pair)[:2], *distance_terms(*pair)) for pair in pairs]).T
    expected = {
        box_losses.l1: away.sum(1),
        box_losses.smooth_l1(0.3): np.where(away < 0.3, away**2 / 0.6, away - 0.15).sum(1),
        box_losses.squared_iou: 1 - overlaps[0] ** 2,
        box_losses.giou: 1 - overlaps[1],
        box_losses.diou: 1 - overlaps[2],
        box_losses.ciou: 1 - overlaps[3],
    }
    given = [jnp.asarray(x, jnp.float64) for x in (offsets, wanted, predicted, truth)]
    for loss, values in expected.items():
        assert_allclose(loss(*given), values, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("small", [detectors.small_ssd, detectors.small_retinanet, detectors.small_yolox])
@pytest.mark.parametrize("loss", [box_losses.smooth_l1(0.1), box_losses.giou, box_losses.ciou])
def test_a_step_against_the_gradient_lowers_the_loss(float64, small, loss):
    task, batch = small(jnp.float64, box_loss=loss), detectors.make_batch((3, 1, 0, 4))
    variables, step = detectors.variables_of(task, batch), jax.jit(detectors.loss_and_gradient(task))
    (before, output), gradient = step(variables, batch)
    size = np.sqrt(sum(np.square(x).sum() for x in jax.tree.leaves(gradient)))
    assert 0 < size < np.inf
    assert output.metrics["box_loss"] > 0
    moved = jax.tree.map(lambda x, slope: x - 1e-5 / size * slope, variables["params"], gradient)
    assert step({**variables, "params": moved}, batch)[0][0] < before
