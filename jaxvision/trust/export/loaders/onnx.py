"""Runs model.onnx of this folder; needs ONNX Runtime and NumPy, nothing else.

python load_onnx.py          runs the example and compares it with its answer
model = load_onnx.load()     {"image": uint8 n h w c, "size": int32 n 2} -> {name: array}; see manifest.json
"""

import json
import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent


def load(folder=FOLDER, **options):
    """The model, from a dict of arrays to a dict of arrays; options of InferenceSession.

    Raises ValueError for a file that can't be read.
    """
    import onnxruntime

    manifest = json.loads((Path(folder) / "manifest.json").read_text(encoding="utf-8"))
    file, made, rows = Path(folder) / "model.onnx", manifest["formats"]["onnx"], manifest["inputs"]
    try:
        session = onnxruntime.InferenceSession(str(file), **{"providers": ["CPUExecutionProvider"], **options})
    except Exception as error:
        raise ValueError(
            f"{file} can't be read by ONNX Runtime {onnxruntime.__version__}: it is damaged, or of an opset that this one "
            f"does not know ({made['opset']}). It was written on {manifest['date']}; export it again: {manifest['command']} "
            f"({type(error).__name__}: {str(error)[:200]})"
        ) from error
    names, needed = [each.name for each in session.get_outputs()], {each.name for each in session.get_inputs()}

    def model(inputs):
        arrays = {each["name"]: np.asarray(inputs[each["name"]], each["dtype"]) for each in rows}
        arrays = {name: x for name, x in arrays.items() if name in needed}
        if made["batch"] == "any":
            return dict(zip(names, map(np.asarray, session.run(None, arrays)), strict=True))
        count = len(next(iter(arrays.values())))
        found = [session.run(None, {name: x[n : n + 1] for name, x in arrays.items()}) for n in range(count)]
        return {name: np.concatenate(each) for name, each in zip(names, zip(*found, strict=True), strict=True)}

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
