"""Our variables as files that others can read: under our own names, or under those that a name map gives.

Of the variables of a run, `state.variables` are the current ones and `state.averaged` the averaged ones. Files are written
beside their place and moved there when they are whole.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from jaxvision.errors import amount, replacing, write_atomically
from jaxvision.pretrained import hdf5
from jaxvision.pretrained.strict import Path as Place
from jaxvision.pretrained.strict import Source, Sources, Turn
from jaxvision.pretrained.torch_layout import unchanged
from jaxvision.tasks.forward import model_variables
from jaxvision.types import Variables

Arrays = dict[str, np.ndarray]


def own_sources(variables: Variables) -> dict[Place, Source]:
    """The name map of what `safetensors` writes: "params/head/kernel"."""
    return {path: Source("/".join(path), unchanged) for path in traverse_util.flatten_dict(model_variables(variables))}


def named(sources: Sources, variables: Variables) -> Arrays:
    """All arrays as another library has them: its names, its axes.

    Raises:
        ValueError: for arrays that it has no name for, or whose way back is not known.
    """
    flat: dict[Place, Any] = {**traverse_util.flatten_dict(model_variables(variables))}
    found = sources(variables)
    wrong = ["/".join(path) for path in flat if path not in found or not isinstance(found[path].convert, Turn)]
    if wrong:
        raise ValueError(
            f"no counterpart in the other library of {amount(len(wrong), 'array')}: {', '.join(wrong[:8])}"
        )
    return {found[path].name: _back(found[path], array) for path, array in flat.items()}


def torch_named(sources: Sources, variables: Variables) -> Arrays:
    """`named`, with the counters of batches that PyTorch's `load_state_dict` asks for, all 0."""
    arrays = named(sources, variables)
    norms = [name.removesuffix("running_mean") for name in arrays if name.endswith("running_mean")]
    return {**arrays, **{f"{norm}num_batches_tracked": np.array(0) for norm in norms}}


def safetensors(variables: Variables, path: str | Path) -> None:
    """Write all arrays under our names; `start(own_sources, path)` reads them.

    Raises:
        OSError: if the file can't be written.
    """
    _write(named(own_sources, variables), Path(path))


def torch_safetensors(sources: Sources, variables: Variables, path: str | Path) -> None:
    """Write what `load_state_dict(safetensors.torch.load_file(path))` of another library takes, whole and strictly.

    Args:
        sources: name map of the library and network: `torchvision.resnet_sources`.
        variables: the network's.
        path: where the file is written.

    Raises:
        ValueError: as `named`.
        OSError: if the file can't be written.
    """
    _write(torch_named(sources, variables), Path(path))


def keras_file(sources: Sources, variables: Variables, path: str | Path, like: str | Path) -> None:
    """Write what `load_weights` of a Keras model takes: a copy of the file `like`, with our numbers.

    Args:
        sources: name map of the network: `keras.resnet_sources`.
        variables: the network's.
        path: where the file is written; its ending is that of `like`, from which Keras knows the format.
        like: a file of weights of the same model with the same classes, which Keras wrote.

    Raises:
        ValueError: as `named`; if `like` has other arrays, or another ending.
        OSError: if a file can't be read or written.
    """
    import h5py

    path, arrays = Path(path), named(sources, variables)
    if path.suffixes[-2:] != Path(like).suffixes[-2:]:
        raise ValueError(f"{path.name} must end as {Path(like).name} does")
    with replacing(path) as copy:
        shutil.copyfile(like, copy)
        with h5py.File(copy, "r+") as file:
            places: dict[str, Any] = {name: file[place] for name, place in hdf5.places(file).items()}
            _check_same(like, places, arrays)
            for name, array in places.items():
                array[...] = arrays[name]


def _check_same(like: str | Path, theirs: Mapping[str, Any], ours: Arrays) -> None:
    given, wanted = ({name: array.shape for name, array in side.items()} for side in (theirs, ours))
    different = sorted(name for name in given.keys() | wanted.keys() if given.get(name) != wanted.get(name))
    if different:
        name = different[0]
        raise ValueError(
            f"{like} is of another network: {amount(len(different), 'array')} of another shape; {name} is "
            f"{given.get(name, 'not there')}, here {wanted.get(name, 'not there')}"
        )


def _back(source: Source, array: Any) -> np.ndarray:
    assert isinstance(source.convert, Turn)
    return np.array(source.convert.back(np.asarray(array)), order="C")


def _write(arrays: Arrays, path: Path) -> None:
    from safetensors.numpy import save

    write_atomically(path, save(arrays))
