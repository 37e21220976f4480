"""Convolutions of whole networks, one at a time, ours beside torch's: where a training step or a prediction loses time.

    python -m experiments.benchmarks.peers
    python -m experiments.benchmarks.convolutions [resnet50:16:128 resnet50:1:224 vgg16:1:300] [--cores=1]

A network of torchvision, a batch and a side in pixels say which convolutions there are. Each is run alone: forward, the
gradient of its images, that of its kernel, in float32; torch channels last, in a process of its own, the two one after the
other. Prints the sum over the network of the medians of 5 calls. Results are in RESULTS.md, "What makes steps faster".
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

WORK = ("forward", "gradient of images", "gradient of kernel")
CALLS = 5


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure convolutions of whole networks, one at a time.")
    parser.add_argument("networks", nargs="*", default=["resnet50:16:128", "resnet50:1:224", "vgg16:1:300"])
    parser.add_argument("--cores", type=int, metavar="N", help="cores to use (all)")
    parser.add_argument("--torch", metavar="NETWORK", help=argparse.SUPPRESS)
    flags = parser.parse_args(argv)
    if flags.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: flags.cores])
    if flags.torch:
        print(json.dumps(by_torch(flags.torch)))
        return
    from experiments.benchmarks import peers

    print("| network:batch:side | convolutions | work | ours | torch | theirs / ours |\n|---|---|---|---|---|---|")
    for network in flags.networks:
        command = [peers.python(), __file__, f"--torch={network}"]
        told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        ours = [by_jax(**each["convolution"]) for each in told]
        for number, work in enumerate(WORK):
            our_time = sum(each["count"] * of[number] for each, of in zip(told, ours, strict=True))
            their_time = sum(each["count"] * each["times"][number] for each in told)
            count = sum(each["count"] for each in told)
            times = f"{1e3 * our_time:.0f} ms | {1e3 * their_time:.0f} ms"
            print(f"| {network} | {count} | {work} | {times} | {their_time / our_time:.2f} |")
        sys.stdout.flush()


def median(call: Callable[[], object]) -> float:
    """The time of a call, in seconds, after one to get ready."""
    call()
    seconds = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def by_torch(network: str) -> list[dict]:
    """The different convolutions of the network, how many there are of each, and the times of `WORK`."""
    import torch
    import torchvision

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    name, batch, side = network.split(":")
    model = getattr(torchvision.models, name)().eval()
    found: dict[str, int] = {}

    def see(layer: torch.nn.Conv2d, given: tuple[torch.Tensor], _) -> None:
        shape = {"images": list(given[0].shape), "kernel": list(layer.weight.shape)}
        key = json.dumps({**shape, "stride": layer.stride[0], "padding": layer.padding[0], "groups": layer.groups})
        found[key] = found.get(key, 0) + 1

    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(see)
    with torch.no_grad():
        (model.features if name.startswith("vgg") else model)(torch.zeros(int(batch), 3, int(side), int(side)))
    told = []
    for key, count in found.items():
        of = json.loads(key)
        images, kernel = (torch.randn(*of[each]).to(memory_format=torch.channels_last) for each in ("images", "kernel"))
        rest = [of["stride"]] * 2, [of["padding"]] * 2, [1, 1]
        forward = lambda a=images, b=kernel, c=rest, g=of["groups"]: torch.conv2d(a, b, None, *c, g)
        result = torch.randn_like(forward())
        last = (*rest, False, [0, 0], of["groups"])
        backward = lambda mask, a=images, b=kernel, r=result, c=last: torch.ops.aten.convolution_backward(
            r, a, b, None, *c, mask
        )
        masks = [True, False, False], [False, True, False]
        with torch.no_grad():
            times = [median(forward), *(median(lambda m=mask, f=backward: f(m)) for mask in masks)]
        told.append({"convolution": of, "count": count, "times": times})
    return told


def by_jax(images: list[int], kernel: list[int], stride: int, padding: int, groups: int) -> list[float]:
    """The times of `WORK` for a convolution of ours; the shapes are torch's."""
    import jax
    import jax.numpy as jnp

    from jaxvision.machine import eigen
    from jaxvision.nn.conv import convolve

    eigen.ask()  # as each command of the project does

    x = jax.random.normal(jax.random.key(0), [images[each] for each in (0, 2, 3, 1)])
    k = jax.random.normal(jax.random.key(1), [kernel[each] for each in (2, 3, 1, 0)])
    forward = lambda x, k: convolve(x, k, stride=stride, padding=padding, groups=groups)
    result = jnp.ones_like(jax.jit(forward)(x, k))
    of_images = jax.jit(lambda x, k, r: jax.vjp(lambda x: forward(x, k), x)[1](r)[0])
    of_kernel = jax.jit(lambda x, k, r: jax.vjp(lambda k: forward(x, k), k)[1](r)[0])
    calls = [(jax.jit(forward), (x, k)), (of_images, (x, k, result)), (of_kernel, (x, k, result))]
    return [median(lambda f=f, given=given: jax.block_until_ready(f(*given))) for f, given in calls]


if __name__ == "__main__":
    main()
