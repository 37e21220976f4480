"""Runs model.tflite of this folder; needs LiteRT (ai-edge-litert, or TensorFlow's) and NumPy, nothing else.

python load_tflite.py          runs the example and compares it with its answer
model = load_tflite.load()     {"image": uint8 n h w c, "size": int32 n 2} -> {name: array}; see manifest.json
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent


def load(folder=FOLDER, **options):
    """The model, from a dict of arrays to a dict of arrays; options of Interpreter. ValueError: it can't be read."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tensorflow.lite.python.interpreter import Interpreter
    manifest = json.loads((Path(folder) / "manifest.json").read_text(encoding="utf-8"))
    file, made, rows = Path(folder) / "model.tflite", manifest["formats"]["tflite"], manifest["inputs"]
    data = file.read_bytes()
    try:
        if hashlib.sha256(data).hexdigest() != made["sha256"]:  # some interpreters crash on a file that was cut off
            raise ValueError("not the bytes that were written")
        run = Interpreter(model_content=data, **options).get_signature_runner(made["signature"])
    except Exception as error:
        raise ValueError(
            f"{file} can't be read by {Interpreter.__module__}: it is damaged, or the interpreter is too old. TensorFlow "
            f"{made['versions']['tensorflow']} wrote it on {manifest['date']}; export it again: {manifest['command']} "
            f"({type(error).__name__}: {str(error)[:200]})"
        ) from error

    def model(inputs):
        arrays = {each["name"]: np.asarray(inputs[each["name"]], each["dtype"]) for each in rows}
        if made["batch"] == "any":
            return run(**arrays)
        count = len(next(iter(arrays.values())))
        found = [run(**{name: x[n : n + 1] for name, x in arrays.items()}) for n in range(count)]
        return {name: np.concatenate([each[name] for each in found]) for name in found[0]}

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
