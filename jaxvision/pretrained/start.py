"""Pretrained weights as the `start` of an experiment."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jaxvision.errors import WeightsError
from jaxvision.pretrained.files import read_weights
from jaxvision.pretrained.strict import Path as Place
from jaxvision.pretrained.strict import Source, Sources, load, without
from jaxvision.types import Variables


def start(
    sources: Sources,
    source: str | Path | Callable[[], Path],
    sha256: str | None = None,
    *,
    inside: str | None = None,
    new: Sequence[str] = (),
    unused: Sequence[str] = (),
) -> Callable[[Variables], Variables]:
    """Fills fresh variables from a file, and prints what became of every array: for `Experiment.start`.

    `start(torchvision.resnet_sources, "resnet50.pth", new=("head/.*",))` starts from a file for other classes.

    Args:
        sources: the name map of the library that the file comes from, and of the network.
        source: a path, an address, or a function that gives a path; it is read when the run starts, not now.
        sha256: hash of the file.
        inside: which of several sets of weights that the file holds; as for `files.read_weights`, and printed, if not given.
        new: patterns of our names that keep their fresh values.
        unused: patterns of names of the file that are left aside.

    Returns:
        A function that raises as `files.read_weights` and `strict.load` do.
    """

    def fill(variables: Variables) -> Variables:
        file = source() if callable(source) else source
        weights = read_weights(file, sha256, inside=inside)
        where = f"{file}, its {weights.inside!r}" if weights.inside else str(file)
        try:
            loaded = load(_found(sources, variables, new), weights.arrays, variables, new=new, unused=unused)
        except ValueError as error:
            raise WeightsError(f"{where}: {error}") from error
        print(f"{where}: {loaded.report}", flush=True)
        return loaded.variables

    return fill


def _found(sources: Sources, variables: Variables, new: Sequence[str]) -> Mapping[Place, Source]:
    """The name map; it need not know modules that are new."""
    try:
        return sources(variables)
    except ValueError:
        return sources(without(variables, new))
