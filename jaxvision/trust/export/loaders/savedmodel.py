"""Runs the SavedModel of this folder; needs TensorFlow and NumPy, nothing else.

python load_savedmodel.py          runs the example and compares it with its answer
model = load_savedmodel.load()     {"image": uint8 n h w c, "size": int32 n 2} -> {name: array}; see manifest.json
"""

import json
import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent


def load(folder=FOLDER):
    """The model, from a dict of arrays to a dict of arrays. Raises ValueError for a folder that can't be read."""
    import tensorflow as tf

    manifest = json.loads((Path(folder) / "manifest.json").read_text(encoding="utf-8"))
    file, made, rows = Path(folder) / "savedmodel", manifest["formats"]["savedmodel"], manifest["inputs"]
    try:
        loaded = tf.saved_model.load(str(file))
        signature = loaded.signatures[made["signature"]]
    except Exception as error:
        raise ValueError(
            f"{file} can't be read by TensorFlow {tf.__version__}: it is damaged, or TensorFlow is older than "
            f"{made['versions']['tensorflow']}, which wrote it on {manifest['date']}. Export it again: "
            f"{manifest['command']} ({type(error).__name__}: {str(error)[:200]})"
        ) from error

    def call(arrays):
        return {name: x.numpy() for name, x in signature(**{n: tf.constant(x) for n, x in arrays.items()}).items()}

    def model(inputs):
        arrays = {each["name"]: np.asarray(inputs[each["name"]], each["dtype"]) for each in rows}
        if made["batch"] == "any":
            return call(arrays)
        count = len(next(iter(arrays.values())))
        found = [call({name: x[n : n + 1] for name, x in arrays.items()}) for n in range(count)]
        return {name: np.concatenate([each[name] for each in found]) for name in found[0]}

    model.keeps = loaded  # what a signature computes is gone with what it was loaded from
    return model


def main(save=None):
    """Runs the example, says how far it is from its answer, and saves what was found, if asked."""
    example = np.load(FOLDER / "example.npz")
    found = load()({name[6:]: example[name] for name in example.files if name.startswith("input/")})
    if save:
        np.savez(save, **found)  # type: ignore[arg-type]
    for name, x in found.items():
        apart = np.abs(x.astype(np.float64) - example["answer/" + name].astype(np.float64)).max(initial=0)
        print(f"{name} {x.dtype} {x.shape}: differs by {apart:.3g} at most")


if __name__ == "__main__":
    main(*sys.argv[1:])
