"""What a network computes from given weights, here and in PyTorch, as figures that can be compared.

Both sides fill their weights from one NumPy RandomState, in the sorted order of PyTorch's names, so that a file of
golden figures needs no weights. Nothing here imports torch unless a function ending in `_torch` is called.
"""

from functools import partial

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


UNOPTIMISED = {"xla_backend_optimization_level": 1, "xla_llvm_disable_expensive_passes": True}
"""For small networks, whose compilation takes longer than what they compute; at level 0 convolutions in float64 crawl."""


def compute(network, variables, images, labels, options=None):
    """Evaluation logits; loss, gradient and new statistics of one training pass: logits, loss, and two trees.

    `options` are those of the compiler.
    """

    def loss_of(params, rest):
        variables = {"params": params, **rest}
        logits, changed = network.apply(variables, images, train=True, mutable=["batch_stats"])
        heads = logits if isinstance(logits, tuple) else (logits,)
        picked = [jnp.take_along_axis(jax.nn.log_softmax(head), labels[:, None], 1) for head in heads]
        return -sum(each.mean() for each in picked), changed

    rest = {name: tree for name, tree in variables.items() if name != "params"}
    compiled = partial(jax.jit, compiler_options=options)
    logits = compiled(lambda v: network.apply(v, images, train=False))(variables)
    (loss, changed), gradient = compiled(jax.value_and_grad(loss_of, has_aux=True))(variables["params"], rest)
    return np.asarray(logits), float(loss), gradient, changed.get("batch_stats", {})


def under_torch_names(sources, collection, tree, flattened=None):
    """Arrays of one of our collections, under PyTorch's names and in its order of axes.

    `flattened` gives channels, height and width of what a dense layer reads flattened, by PyTorch's name of its kernel.
    """
    axes = {1: (0,), 2: (1, 0), 3: (0, 1, 2), 4: (3, 2, 0, 1)}
    named = {}
    for path, array in traverse_util.flatten_dict(tree).items():
        name, array = sources[(collection, *path)].name, np.asarray(array)
        if name in (flattened or {}):
            channels, height, width = flattened[name]
            array = array.reshape(height, width, channels, -1).transpose(2, 0, 1, 3).reshape(array.shape)
        named[name] = np.transpose(array, axes[array.ndim])
    return named


def rnn_from_torch(weights, cell):
    """Parameters of an `RNNClassifier` of two layers: torch stacks the gates, and has a bias before and one behind."""
    params = {"head": {"kernel": weights["head.weight"].T, "bias": weights["head.bias"]}}
    gates = "ifgo" if cell == "lstm" else "rzn"
    for layer in (0, 1):
        split = {
            name: np.split(weights[f"rnn.{name}_l{layer}"], len(gates))
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
        own = params[f"layer{layer + 1}"] = {}
        for number, gate in enumerate(gates):
            own[f"i{gate}"] = {"kernel": split["weight_ih"][number].T}
            own[f"h{gate}"] = {"kernel": split["weight_hh"][number].T}
            before, behind = split["bias_ih"][number], split["bias_hh"][number]
            if cell == "gru" and gate == "n":
                own["in"]["bias"], own["hn"]["bias"] = before, behind
            else:
                own[f"{'h' if cell == 'lstm' else 'i'}{gate}"]["bias"] = before + behind
    return {"params": jax.tree.map(jnp.asarray, params)}


def rnn_gradient_to_torch(gradient, cell):
    """Gradients under torch's names; where torch has two biases for our one, both have its gradient."""
    named = {"head.weight": np.asarray(gradient["head"]["kernel"]).T, "head.bias": np.asarray(gradient["head"]["bias"])}
    gates, own_bias = ("ifgo", "h") if cell == "lstm" else ("rzn", "i")
    for layer in (0, 1):
        ours = gradient[f"layer{layer + 1}"]
        for side, torchs in (("i", "ih"), ("h", "hh")):
            kernels = [np.asarray(ours[side + gate]["kernel"]).T for gate in gates]
            biases = [np.asarray(ours[side + gate].get("bias", ours[own_bias + gate].get("bias"))) for gate in gates]
            named[f"rnn.weight_{torchs}_l{layer}"] = np.concatenate(kernels)
            named[f"rnn.bias_{torchs}_l{layer}"] = np.concatenate(biases)
    return named


def spec_of(network, shape):
    """Shapes and types of a network's variables for images of this shape; nothing is computed."""
    return jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros(shape), train=False))


def parameter_count(network, side):
    """Number of parameters of a network for one RGB image of this side."""
    return sum(leaf.size for leaf in jax.tree.leaves(spec_of(network, (1, side, side, 3))["params"]))


def filled(spec, seed=1):
    """Variables of these shapes and types, filled by NumPy: nothing to compile."""
    random = np.random.RandomState(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(np.abs(random.standard_normal(leaf.shape)) * 0.1, leaf.dtype), spec)


def traced_once(network, shape):
    """One training step with dropout, traced under strict promotion, and the variables that it takes."""
    x = jnp.asarray(np.random.RandomState(0).standard_normal(shape), jnp.float32)
    spec = spec_of(network, shape)
    mutable = [name for name in spec if name != "params"]

    def loss_of(params, rest):
        rngs = {"dropout": jax.random.key(1)}
        logits, _ = network.apply({**rest, "params": params}, x, train=True, mutable=mutable, rngs=rngs)
        return jax.nn.logsumexp(logits, 1).mean(), logits

    rest = {name: tree for name, tree in spec.items() if name != "params"}
    with jax.numpy_dtype_promotion("strict"):
        return jax.jit(jax.grad(loss_of, has_aux=True)).trace(spec["params"], rest), (spec["params"], rest)


def trained_types(network, shape):
    """The types of the logits and of the gradient of one training step; nothing is compiled."""
    return {leaf.dtype for leaf in jax.tree.leaves(traced_once(network, shape)[0].out_info)}


def trained_once(network, shape):
    """Logits and the gradient of one training step: an array and a tree."""
    traced, spec = traced_once(network, shape)
    gradient, logits = traced.lower().compile(UNOPTIMISED)(*filled(spec))  # JAX lowers bfloat16 attention by promotion
    return logits, gradient


def assert_equals_golden(golden, network, load, sources_of, flattened=None):
    """Logits, loss, gradients and statistics of `network` are those of a golden file, whose weights `load` fills in."""
    seed, shape = int(golden["seed"]), tuple(golden["images_shape"])
    x, labels = random_images(shape, golden["logits"].shape[1], seed + 1)
    spec = spec_of(network, shape)
    sources = sources_of(spec)
    variables = load(random_weights(shapes_of(golden), seed), spec)
    logits, loss, gradient, statistics = compute(network, variables, jnp.asarray(x), jnp.asarray(labels), UNOPTIMISED)
    assert logits.dtype == np.float64
    np.testing.assert_allclose(logits, golden["logits"], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(loss, golden["loss"], rtol=1e-9)
    for name, collection, tree in (("gradients", "params", gradient), ("statistics", "batch_stats", statistics)):
        ours = summary(under_torch_names(sources, collection, tree, flattened)).reshape(-1, 2)
        norms = golden[name][:, :1]
        norms = np.maximum(norms, 1e-6 * norms.max(initial=1e-300))  # what a norm follows has no gradient but rounding
        np.testing.assert_allclose(ours / norms, golden[name] / norms, rtol=0, atol=1e-7)


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
    for layer in model.modules():
        if isinstance(layer, torch.nn.Dropout) or type(layer).__name__ == "StochasticDepth":
            layer.p = 0.0
    outputs = model.train()(batch)
    heads = outputs if isinstance(outputs, tuple) else (outputs,)
    loss = sum(torch.nn.functional.cross_entropy(head, torch.from_numpy(labels)) for head in heads)
    loss.backward()
    gradients = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    statistics = {name: value.numpy() for name, value in model.named_buffers() if "running" in name}
    return logits, loss.item(), gradients, statistics


def shapes_torch(model):
    """Names and shapes of a torch module's weights and statistics, without the counters."""
    state = model.state_dict()
    return {name: tuple(value.shape) for name, value in state.items() if not name.endswith("num_batches_tracked")}
