"""Pretrained weights as the `start` of an experiment."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jaxvision.pretrained.files import read
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
        inside: which of several sets of weights that the file holds.
        new: patterns of our names that keep their fresh values.
        unused: patterns of names of the file that are left aside.

    Returns:
        A function that raises as `files.read` and `strict.load` do.
    """

    def fill(variables: Variables) -> Variables:
        file = source() if callable(source) else source
        arrays = read(file, sha256, inside=inside)
        try:
            loaded = load(_found(sources, variables, new), arrays, variables, new=new, unused=unused)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        print(f"{file}: {loaded.report}", flush=True)
        return loaded.variables

    return fill


def _found(sources: Sources, variables: Variables, new: Sequence[str]) -> Mapping[Place, Source]:
    """The name map; it need not know modules that are new."""
    try:
        return sources(variables)
    except ValueError:
        return sources(without(variables, new))
