"""Runs model.stablehlo of this folder; needs JAX and NumPy, nothing else.

python load_stablehlo.py          runs the example and compares it with its answer
model = load_stablehlo.load()     {"image": uint8 n h w c, "size": int32 n 2} -> {name: array}; see manifest.json
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from jax import export

FOLDER = Path(__file__).resolve().parent


def load(folder=FOLDER):
    """The model, from a dict of arrays to a dict of arrays. Raises ValueError for a file that can't be read."""
    manifest = json.loads((Path(folder) / "manifest.json").read_text(encoding="utf-8"))
    file, made, rows = Path(folder) / "model.stablehlo", manifest["formats"]["stablehlo"], manifest["inputs"]
    try:
        call = jax.jit(export.deserialize(bytearray(file.read_bytes())).call)
        call.lower(*(jax.ShapeDtypeStruct((1, *each["shape"]), each["dtype"]) for each in rows))
    except Exception as error:
        raise ValueError(
            f"{file} can't be read by JAX {jax.__version__}: it is damaged, or too old. JAX {made['versions']['jax']} wrote "
            f"it on {manifest['date']}, to be read until {made['readable_until']} at least. Export it again: "
            f"{manifest['command']} ({type(error).__name__}: {str(error)[:200]})"
        ) from error

    def model(inputs):
        arrays = [np.asarray(inputs[each["name"]], each["dtype"]) for each in rows]
        if made["batch"] == "any":
            return {name: np.asarray(x) for name, x in call(*arrays).items()}
        found = [call(*(x[n : n + 1] for x in arrays)) for n in range(len(arrays[0]))]
        return {name: np.concatenate([each[name] for each in found]) for name in found[0]}

    return model


def main(save=None):
    """Runs the example, says how far it is from its answer, and saves what was found, if asked."""
    example = np.load(FOLDER / "example.npz")
    found = load()({name[6:]: example[name] for name in example.files if name.startswith("input/")})
    if save:
        np.savez(save, **found)  # type: ignore[arg-type]
    for name, x in found.items():
        equal = np.array_equal(x, example["answer/" + name], equal_nan=x.dtype.kind == "f")
        apart = np.abs(x.astype(np.float64) - example["answer/" + name].astype(np.float64)).max(initial=0)
        print(f"{name} {x.dtype} {x.shape}: " + ("equal" if equal else f"differs by {apart:.3g} at most"))


if __name__ == "__main__":
    main(*sys.argv[1:])
