"""Vocabulary: the names under which the classes of several models are written, and what becomes of each model's own."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxvision.errors import ConfigError, amount, closest, nearest
from jaxvision.formats.files import content

MOST_BYTES = 1 << 24
"""Bytes that a file of names may have."""
NAMED = 5
"""Classes that a message names."""


class Vocabulary(NamedTuple):
    """Names that are written, and of each model which of its classes has which."""

    classes: tuple[str, ...]
    translations: tuple[Mapping[str, str], ...]
    """A model each: from its classes to names; a class that is left out is no key."""
    remarks: tuple[str, ...] = ()
    """Which model lacks which of the classes that were asked for."""


def read_map(text: str) -> dict[str, str]:
    """Names of classes from `class=class,...`, or from a file: a JSON object, or a line `class=class` each.

    A class whose new name is empty is left out.

    Raises:
      ConfigError: for what is neither, and for a class that is named twice.
    """
    if "=" in text and not Path(text).is_file():
        return _pairs(text.split(","), "--map")
    try:
        lines = content(text, MOST_BYTES).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigError(f"--map={text}: neither class=class,... nor a file that can be read ({error})") from None
    if not lines.lstrip().startswith("{"):
        return _pairs((line for line in lines.splitlines() if line.strip()), text)
    try:
        pairs = json.loads(lines, object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{text}: no JSON ({error})") from None
    if not all(isinstance(name, str) for _, name in pairs):
        raise ConfigError(f"{text}: allowed is an object of texts, a class and its new name each")
    return _named_once(pairs, text)


def _pairs(parts: Iterable[str], where: str) -> dict[str, str]:
    pairs = [(part, *part.partition("=")) for part in parts]
    for part, name, equals, _ in pairs:
        if not equals or not name.strip():
            raise ConfigError(f"{where}: {part!r} is no class=class")
    return _named_once([(name.strip(), new.strip()) for _, name, _, new in pairs], where)


def _named_once(pairs: Sequence[tuple[str, str]], where: str) -> dict[str, str]:
    known = dict(pairs)
    if len(known) < len(pairs):
        twice = next(name for place, (name, _) in enumerate(pairs) if name in dict(pairs[:place]))
        raise ConfigError(f"{where} names {twice!r} twice")
    return known


def vocabulary(
    models: Mapping[str, Sequence[str]], renamed: Mapping[str, str] | None = None, wanted: Sequence[str] | None = None
) -> Vocabulary:
    """The names that are written of the classes of these models.

    The first model's classes keep their names, or have those that the map says. Those of any other must have one of these
    names, renamed or as they are.

    Args:
      models: classes of each, by its name.
      renamed: new names of classes; an empty one leaves the class out.
      wanted: names that are written; all else is left out, whatever the models call it. None: all.

    Raises:
      ConfigError: for a class of a model that the map would have to name, with the nearest names; for a class that the map
        names, or that is wanted, and no model has.
    """
    renamed = renamed or {}
    every = tuple(dict.fromkeys(name for classes in models.values() for name in classes))
    for name in renamed:
        if name not in every:
            raise ConfigError(f"--map names {name!r}, which is no class of {_listed(models)}{nearest(name, every)}")
    translated = {model: {each: renamed.get(each, each) for each in classes} for model, classes in models.items()}
    translated = {model: {each: new for each, new in names.items() if new} for model, names in translated.items()}
    if wanted is not None:
        return _chosen(translated, tuple(dict.fromkeys(wanted)))
    first = tuple(dict.fromkeys([*next(iter(translated.values())).values(), *filter(None, renamed.values())]))
    for model, names in translated.items():
        _check_named(model, [new for each, new in names.items() if new not in first], first)
    return Vocabulary(first, tuple(translated.values()))


def _check_named(model: str, strangers: Sequence[str], known: Sequence[str]) -> None:
    if not strangers:
        return
    near = {each: closest(each, known) for each in strangers}
    shown = sorted(strangers, key=lambda each: not near[each])[:NAMED]
    texts = [f"{each!r}" + (f" (nearest: {near[each][0]!r})" if near[each] else "") for each in shown]
    rest = f" and {len(strangers) - len(shown)} more" if len(strangers) > len(shown) else ""
    raise ConfigError(
        f"{model} has {amount(len(strangers), 'class')} that the first model has not, and --map does not name: "
        f"{', '.join(texts)}{rest}; say --map=class=class,... (class= leaves one out)"
    )


def _chosen(translated: Mapping[str, Mapping[str, str]], wanted: tuple[str, ...]) -> Vocabulary:
    every = tuple(dict.fromkeys(new for names in translated.values() for new in names.values()))
    for name in wanted:
        if name not in every:
            raise ConfigError(f"--classes: {name!r} is no class of {_listed(translated)}{nearest(name, every)}")
    kept = tuple({each: new for each, new in names.items() if new in wanted} for names in translated.values())
    remarks = []
    for model, names in translated.items():
        known = tuple(names.values())
        remarks += [f"{model} has no class {name!r}{nearest(name, known)}" for name in wanted if name not in known]
    return Vocabulary(wanted, kept, tuple(remarks))


def _listed(models: Iterable[str]) -> str:
    return " or ".join(models)
