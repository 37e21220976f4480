"""Facts about steps compiled for eight devices, as JSON. Not a test itself: started with eight simulated devices."""

import json
import sys

import jax
import optax

from jaxvision import train
from jaxvision.data.loading import spec
from jaxvision.nn.cnn import SmallCNN, TutorialCNN
from jaxvision.nn.resnet import resnet18
from jaxvision.run import devices
from jaxvision.tasks.classification import classification


def step_of(network, channels, size, fsdp):
    """The state's shapes with their layout, the state, and the compiled step."""
    mesh = devices.device_mesh(fsdp)
    task = classification(network, mean=0.0, std=1.0)
    optimizer, batch = optax.adamw(1e-3), spec(16, (size, size), channels)

    def first(layout=lambda shapes: None):
        average = train.exponential_average(0.9)
        return train.init_state(task, optimizer, jax.random.key(0), batch, average=average, layout=layout)

    like = devices.with_layout(mesh, jax.eval_shape(first))
    step = jax.jit(
        train.make_train_step(devices.gathering(task, mesh), optimizer, average=train.exponential_average(0.9)),
        donate_argnums=0,
        out_shardings=(devices.layout(mesh, like), devices.replicated(mesh)),
    )
    return first(lambda shapes: devices.layout(mesh, shapes)), step.lower(like, devices.batch_on(mesh, batch)).compile()


def exchanged(network, channels, size, fsdp=1):
    state, compiled = step_of(network, channels, size, fsdp)
    return {
        "parameters": [list(x.shape) for x in jax.tree.leaves(state.params)],
        "exchanged": [[each.kind, list(each.shape), each.bytes] for each in devices.collectives(compiled.as_text())],
    }


def held(network, channels, size, fsdp):
    """The bytes of parameters and optimizer state on each device, and in all."""
    state, compiled = step_of(network, channels, size, fsdp)
    leaves = jax.tree.leaves((state.params, state.opt_state, state.ema))
    devices = {device.id: 0 for device in jax.devices()}
    for leaf in leaves:
        for shard in leaf.addressable_shards:
            devices[shard.device.id] += shard.data.nbytes
    return {
        "bytes": sum(x.nbytes for x in leaves),
        "per_device": list(devices.values()),
        "arguments": compiled.memory_analysis().argument_size_in_bytes,
    }


json.dump(
    {
        "plain": exchanged(TutorialCNN(10), 3, 32),
        "normed": exchanged(SmallCNN(10), 1, 28),
        "fsdp": exchanged(TutorialCNN(10), 3, 32, fsdp=8),
        "resnet18": held(resnet18(10), 3, 32, fsdp=8),
    },
    sys.stdout,
)
