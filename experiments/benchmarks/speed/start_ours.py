"""Program of jaxvision in the benchmark `start`: `jaxvision.main` on the quickstart, ended behind its first step."""

import json
import os
import sys

from jaxvision import commands, main

CONFIG = "--config=experiments/quickstart.py"


def ending(step):
    """The training step, behind which the process ends."""
    import jax

    def first(state, batch):
        state, _ = jax.block_until_ready(step(state, batch))
        parameters = sum(each.size for each in jax.tree.leaves(state.params))
        print(json.dumps({"parameters": parameters, "batch": len(batch.image)}), flush=True)
        os._exit(0)

    return first


def start(arguments: list[str]) -> int:
    """Runs the command; its loop gets a step that ends the process."""
    if "--help" not in arguments:
        from jaxvision import train

        fit = train.fit
        train.fit = lambda step, *given, **named: fit(ending(step), *given, **named)
    return main.main([CONFIG, *arguments] if "--help" not in arguments else arguments)


if __name__ == "__main__":
    commands.enter(lambda: start(sys.argv[1:]))
