"""What a network computes from given weights, here and in PyTorch, as figures that can be compared.

Both sides fill their weights from one NumPy RandomState, in the sorted order of PyTorch's names, so that a file of
golden figures needs no weights. Nothing here imports torch unless a function ending in `_torch` is called.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util


def random_weights(shapes, seed):
    """Arrays of these shapes; scaled so that the activations of a deep residual network stay near 1."""
    random = np.random.RandomState(seed)
    return {name: _scaled(name, random.standard_normal(shapes[name])) for name in sorted(shapes)}


def _scaled(name, normal):
    if name.endswith("running_var"):
        return np.exp(0.1 * normal)
    if normal.ndim > 1:
        return normal / np.sqrt(normal[0].size)
    return 0.1 * normal + (1 if name.endswith("weight") else 0)


def random_images(shape, classes, seed):
    """Images `b h w c` of unit variance, and a label for each."""
    random = np.random.RandomState(seed)
    return random.standard_normal(shape), random.randint(classes, size=shape[0])


def summary(arrays):
    """Norm and one fixed projection of every array, in the sorted order of the names: `n 2`."""
    flat = [np.ravel(arrays[name]) for name in sorted(arrays)]
    return np.array([[np.linalg.norm(a), a @ np.cos(np.arange(a.size))] for a in flat])


def shapes_of(golden):
    """The names and shapes that a golden file lists, one string each: "conv1.weight 64 3 7 7"."""
    fields = [line.split() for line in golden["shapes"]]
    return {name: tuple(int(size) for size in sizes) for name, *sizes in fields}


def compute(network, variables, images, labels):
    """Evaluation logits; loss, gradient and new statistics of one training pass: logits, loss, and two trees."""

    def loss_of(params, rest):
        variables = {"params": params, **rest}
        logits, changed = network.apply(variables, images, train=True, mutable=["batch_stats"])
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)
        return -picked.mean(), changed

    rest = {name: tree for name, tree in variables.items() if name != "params"}
    logits = jax.jit(lambda v: network.apply(v, images, train=False))(variables)
    (loss, changed), gradient = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(variables["params"], rest)
    return np.asarray(logits), float(loss), gradient, changed.get("batch_stats", {})


def under_torch_names(sources, collection, tree):
    """Arrays of one of our collections, under PyTorch's names and in its order of axes."""
    axes = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
    flat = traverse_util.flatten_dict(tree)
    return {
        sources[(collection, *path)].name: np.transpose(np.asarray(array), axes[array.ndim])
        for path, array in flat.items()
    }


def compute_torch(model, weights, images, labels):
    """The same four figures from a torch module: logits, loss, gradients and running statistics by name."""
    import torch

    dtype = next(model.parameters()).dtype
    counters = {name: value for name, value in model.state_dict().items() if name.endswith("num_batches_tracked")}
    given = {name: torch.from_numpy(np.asarray(array)).to(dtype) for name, array in weights.items()}
    model.load_state_dict({**given, **counters})
    batch = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(dtype)
    with torch.no_grad():
        logits = model.eval()(batch).numpy()
    loss = torch.nn.functional.cross_entropy(model.train()(batch), torch.from_numpy(labels))
    loss.backward()
    gradients = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    statistics = {name: value.numpy() for name, value in model.named_buffers() if "running" in name}
    return logits, loss.item(), gradients, statistics


def shapes_torch(model):
    """Names and shapes of a torch module's weights and statistics, without the counters."""
    state = model.state_dict()
    return {name: tuple(value.shape) for name, value in state.items() if not name.endswith("num_batches_tracked")}
