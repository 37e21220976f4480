"""Evaluations by group, as a command asks for them: which groups a name means, and the figures of all evaluations."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from jaxvision.errors import DataError, naming, nearest, raised_as, write_atomically
from jaxvision.experiment import Evaluation
from jaxvision.metrics.classification import FEW_CLASSES
from jaxvision.run.evaluation import Evaluated
from jaxvision.trust import group_file, group_table, groups
from jaxvision.trust.by_group import ByGroup, figures_by_group, observing
from jaxvision.trust.group_file import GroupFile
from jaxvision.trust.rates import Rates, accuracies, decisions
from jaxvision.types import Groups, Labels, Objects


class Grouping:
    """Groups to evaluate by: each entry of `by` is an attribute, or several to cross."""

    def __init__(self, by: Sequence[Sequence[str]], file: Path | None = None):
        self.by = by
        self.path = file
        self.known: dict[str, list[Groups]] = {}
        self.evaluations: Mapping[str, Evaluation] = {}

    @cached_property
    def file(self) -> GroupFile | None:
        """The file of groups, read."""
        return None if self.path is None else group_file.read(self.path)

    def observing(self, evaluations: Mapping[str, Evaluation]) -> Mapping[str, Evaluation]:
        """The evaluations with metrics whose rows have what the groups need.

        Raises:
          DataError: for an attribute that an evaluation does not have, and a file of groups that does not fit the data.
        """
        if not self.by:
            return evaluations
        with raised_as(DataError):
            abouts = {name: each.stream.about() for name, each in evaluations.items()}
            if self.file is not None:
                group_file.check_known(self.file, list(abouts.values()))
            for name, each in evaluations.items():
                with naming(f"evaluation {name}"):
                    self.known[name] = [groups.cross(*(self._groups(one, each) for one in names)) for names in self.by]
        self.evaluations = evaluations
        return {
            name: each._replace(metric=observing(each.metric, self.known[name])) for name, each in evaluations.items()
        }

    def _groups(self, attribute: str, evaluation: Evaluation) -> Groups:
        """The groups by an attribute: a column of the file, or a name of the experiment's, or what any target has."""
        if self.file is not None and attribute in self.file.attributes:
            return group_file.groups(self.file, attribute, evaluation.stream.about())
        target = evaluation.stream.spec.target
        known: dict[str, Callable[[], Groups]] = {"brightness": groups.brightness}
        if isinstance(target, Objects):
            known["size"] = groups.size
        if isinstance(target, Labels):
            known["class"] = lambda: groups.by_class(evaluation.stream.about().classes)
        if attribute in evaluation.groups:
            return evaluation.groups[attribute]
        if attribute not in known:
            columns = () if self.file is None else self.file.attributes
            there_are = sorted({*evaluation.groups, *known, *columns})
            more = "" if columns else "; a column of --groups=FILE.csv gives others"
            raise ValueError(f"there are no groups by {attribute!r}{nearest(attribute, there_are)}{more}")
        return known[attribute]()

    def figures(self, found: Mapping[str, Evaluated]) -> dict[str, list[ByGroup]]:
        """The figures of each evaluation by each of the attributes.

        Raises:
          DataError: where no example is in a group.
        """
        return {
            name: [
                figures_by_group(evaluation.metric, of, found[name].rows, rates=rates_of(evaluation))
                for of in self.known[name]
            ]
            for name, evaluation in self.evaluations.items()
        }


def rates_of(evaluation: Evaluation) -> Rates:
    """The rates of a classifier's metric: those of each class too, where there are few classes."""
    if not isinstance(evaluation.stream.spec.target, Labels):
        return accuracies
    classes = evaluation.stream.about().classes
    return decisions(classes) if len(classes) <= FEW_CLASSES else accuracies


def texts(found: Mapping[str, Sequence[ByGroup]]) -> list[str]:
    """Tables for a terminal."""
    return [f"{name}, {group_table.text(each)}" for name, all in found.items() for each in all]


def write(found: Mapping[str, Sequence[ByGroup]], folder: Path) -> None:
    """Writes every figure as `by_<attribute>_<evaluation>.csv` into a folder."""
    for name, all in found.items():
        for each in all:
            attribute = re.sub(r"\W+", "_", each.attribute)
            write_atomically(folder / f"by_{attribute}_{name}.csv", group_table.csv_text(each))
