"""U-Net and U^2-Net against torch versions of their definitions, whole tasks in float64: python -m pytest -m parity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from detectors import loss_and_gradient, variables_of
from flax import traverse_util

from jaxvision.ops.pixels import IMAGENET_MEAN, IMAGENET_STD
from jaxvision.tasks.u2net import Stage, U2Net, salient_objects, u2netp
from jaxvision.tasks.unet import UNet, unet
from jaxvision.types import Batch, SegmentationMap

pytestmark = pytest.mark.parity
NAMES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
SMALL = U2Net((Stage(4, 3, 5), Stage(3, 3, 6), Stage(3, 2, 6, True)), (Stage(3, 3, 6), Stage(4, 2, 5)))


def batch(height, width, classes, channels=3):
    random = np.random.RandomState(0)
    image = random.uniform(0, 230, (2, height, width, channels))
    label = random.randint(classes, size=(2, height, width)).astype(np.int32)
    valid = random.uniform(size=label.shape) < 0.9
    size, index = jnp.tile(jnp.int32([[height, width]]), (2, 1)), jnp.arange(2, dtype=jnp.int32)
    target = SegmentationMap(jnp.asarray(label), jnp.asarray(valid))
    return Batch(jnp.asarray(image), size, size, index, index >= 0, target)


def turned(path, array):
    """Our array with torch's axes."""
    if path[-1] != "kernel":
        return array
    return array.transpose(2, 3, 0, 1) if path[-2].endswith("upconv") else array.transpose(3, 2, 0, 1)


def under_torch_names(tree, names):
    flat = traverse_util.flatten_dict(tree)
    return {
        f"{names('/'.join(path[:-1]), path[-1])}.{NAMES[path[-1]]}": turned(path, np.asarray(array))
        for path, array in flat.items()
    }


def filled_torch(model, variables, names):
    """The torch module with our variables."""
    import torch

    arrays = {name: x for tree in variables.values() for name, x in under_torch_names(tree, names).items()}
    counters = {name: x for name, x in model.state_dict().items() if name.endswith("num_batches_tracked")}
    model.double().load_state_dict({**{name: torch.tensor(x) for name, x in arrays.items()}, **counters})
    return model


def compare(task, model, names, given, run, capsys):
    """Largest errors: of logits, loss, gradients and statistics; `run(model, images)` gives the list of torch's logits."""
    import torch

    variables = variables_of(task, given)
    model = filled_torch(model, variables, names)
    image, label, valid = (torch.tensor(np.asarray(x)) for x in (given.image, given.target.label, given.target.valid))
    with torch.no_grad():
        expected = run(model.eval(), image.permute(0, 3, 1, 2))[0].permute(0, 2, 3, 1).numpy()
    outputs = run(model.train(), image.permute(0, 3, 1, 2))
    masked = torch.where(valid, label.long(), -1)
    total = sum(torch.nn.functional.cross_entropy(each, masked, ignore_index=-1) for each in outputs)
    total.backward()

    (loss, out), gradient = jax.jit(loss_and_gradient(task))(variables, given)
    logits = np.asarray(jax.jit(task.predict)(variables, given).logits)
    errors = {"logits": np.abs(logits - expected).max() / np.abs(expected).max()}
    errors["loss"] = abs(float(loss) - total.item()) / abs(total.item())
    theirs = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    ours = under_torch_names(gradient, names)
    assert set(ours) == set(theirs)
    largest = max(np.linalg.norm(x) for x in theirs.values())
    errors["gradient"] = max(
        np.linalg.norm(ours[name] - x) / max(np.linalg.norm(x), 1e-6 * largest) for name, x in theirs.items()
    )
    if "batch_stats" in out.collections:
        after, state = under_torch_names(out.collections["batch_stats"], names), model.state_dict()
        errors["statistics"] = max(np.abs(x - state[name].numpy()).max() for name, x in after.items())
    with capsys.disabled():
        print("", type(model).__name__, "  ".join(f"{name} {error:.1e}" for name, error in errors.items()))
    assert max(errors.values()) < 1e-7


def normalised(x):
    import torch

    mean, std = (torch.tensor(each, dtype=torch.float64).reshape(1, 3, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_STD))
    return (x - mean) / std


def two_channels(x):
    import torch

    return torch.cat([torch.zeros_like(x), x], 1)


def test_unet(float64, capsys):
    import torch
    from parity_unet import TorchUNet, unet_names

    network = UNet(3, width=4, dropout=0.0, dtype=jnp.float64)
    model = TorchUNet(3, 3, 4)
    assert sum(x.numel() for x in TorchUNet(1, 2, 64).parameters()) == 31_030_658

    def run(model, x):
        padded = torch.nn.functional.pad(normalised(x), (92, 92, 92, 92), mode="reflect")
        return [model(padded)]

    compare(unet(network, dtype=jnp.float64), model, unet_names, batch(100, 116, 3), run, capsys)


@pytest.mark.parametrize("network", [SMALL, u2netp()], ids=["small", "u2netp"])
def test_u2net(float64, capsys, network):
    import torch
    from parity_unet import TorchU2Net, u2net_names

    network = network.clone(dtype=jnp.float64)
    model = TorchU2Net(network.contracting, network.expanding)

    def run(model, x):
        largest = torch.amax(x, (1, 2, 3), keepdim=True)
        return [two_channels(each) for each in model(normalised(x * (255 / largest)))]

    given = batch(45, 66, 2) if network.contracting == SMALL.contracting else batch(75, 70, 2)
    compare(salient_objects(network, dtype=jnp.float64), model, u2net_names, given, run, capsys)
