"""From an experiment file and texts to a config: loaded, set from the command line, checked against its types."""

import ast
import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxvision.errors import ConfigError, DataError, WeightsError, naming, nearest, raised_as
from jaxvision.experiment import Experiment
from jaxvision.machine.folders import local
from jaxvision.run import devices, first_use, own_modules
from jaxvision.run.workdir import Recipe

PLACE = re.compile(r"~(/|$)|[A-Za-z][A-Za-z0-9+.-]+://")
"""How a text begins that is a path below the home folder, or an address."""
DOWNLOADED = ("https://", "http://", "file://")


class Built(NamedTuple):
    """An experiment, and what it was built from."""

    experiment: Experiment
    recipe: Recipe


class Watched(ConfigDict):
    """A config that notes which of its fields are read; its copies note nothing."""

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        note = self.__dict__.get("_note")
        if note is not None and not isinstance(value, ConfigDict):
            note(key)
        return value


def watched(config: ConfigDict, read: set[str], prefix: str = "") -> ConfigDict:
    """The config, locked; `read` gets the dotted name of each field when it is read."""
    copy = Watched()
    for name, value in config.items():
        copy[name] = watched(value, read, f"{prefix}{name}.") if isinstance(value, ConfigDict) else value
    object.__setattr__(copy, "_note", lambda name: read.add(prefix + name))
    return copy.lock()


def build(
    path: str | Path,
    overrides: Mapping[str, str] = MappingProxyType({}),
    command: Sequence[str] = (),
    *,
    read: set[str] | None = None,
) -> Built:
    """The experiment of a file, with these fields of its config set; `precision` is resolved for this machine.

    Args:
      path: the experiment file.
      overrides: dotted field name to the text given for it.
      command: the command line, for the workdir to keep.
      read: gets the dotted name of each field that is read, here or when the data are opened.

    Raises:
      ConfigError: as `load` and `configure` do, and if the experiment can't be built.
    """
    module = load(path)
    config = configure(module.get_config(), overrides)
    with naming_fields(config), raised_as(ConfigError):
        devices.resolve_precision(config)
        filled = watched(here(config), set() if read is None else read)  # and `build` fills in what the data say
        experiment = module.build(filled)
        first_use.note(Path(path))
        return Built(experiment, Recipe(Path(path), as_json(as_given(filled, config)), command))


@contextmanager
def naming_fields(config: Mapping[str, Any] | ConfigDict) -> Iterator[None]:
    """Inside this block an error of config, data or weights names the field that has what it is about.

    That is the field with the path or text that the message has, and one that it calls `field="value"`.
    """
    try:
        yield
    except (ConfigError, DataError, WeightsError) as error:
        text = _with_fields(str(error), fields(config))
        if text == str(error) or error.args != (str(error),):
            raise
        raise type(error)(text) from error


def _with_fields(text: str, values: Mapping[str, Any]) -> str:
    for name in values:
        short = name.rpartition(".")[2]
        text = re.sub(rf'(?<![\w.]){re.escape(short)}="(\w+)"', rf"--config.{name}=\1", text)
    known = {name: value for name, value in values.items() if isinstance(value, str) and os.sep in value}
    known |= {
        name: value for name, value in values.items() if isinstance(value, str) and f"{value} is no folder" in text
    }
    named = [name for name, value in known.items() if value and _holds(text, value) and f"config.{name}" not in text]
    return f"--config.{', --config.'.join(named)}: {text}" if named else text


def _holds(text: str, path: str) -> bool:
    """Whether the text has this path, or one below it; `~` at its beginning may be written out."""
    return any(re.search(rf"(?<![\w/]){re.escape(each)}(?![\w.])", text) for each in {path, os.path.expanduser(path)})


def load(path: str | Path) -> ModuleType:
    """The experiment file as a module with `get_config()` and `build(config)`; modules beside it are found by it.

    Raises:
      ConfigError: if there is no such file, it or a module of it is no Python, or it lacks one of the two functions.
    """
    path = Path(path)
    if not path.is_file():
        near = nearest(path.name, sorted(p.name for p in path.parent.glob("*.py")) if path.parent.is_dir() else [])
        raise ConfigError(f"no experiment file {path}{near}")
    if path.suffix != ".py":
        raise ConfigError(f"{path} is no Python file: an experiment is a .py file with get_config() and build(config)")
    try:
        module = own_modules.load(f"experiment_{path.stem}", path)
    except SyntaxError as error:
        where = f"{error.filename}, line {error.lineno}" if error.filename else f"{path}, or a module of it"
        raise ConfigError(f"{where}: {error.msg}") from error
    for name in ("get_config", "build"):
        if not callable(getattr(module, name, None)):
            raise ConfigError(f"{path} has no function {name}(): an experiment file has get_config() and build(config)")
    return module


def configure(config: ConfigDict, overrides: Mapping[str, str]) -> ConfigDict:
    """The config with the values given on the command line, locked.

    Args:
      config: of `get_config()`; left as it is.
      overrides: dotted field name to the text given for it.

    Raises:
      ConfigError: for an unknown field (the nearest one is named) or a value of another type.
    """
    config = config.copy_and_resolve_references()
    for field, text in overrides.items():
        *sections, last = field.split(".")
        place = config
        for section in sections:
            place = _section(place, section, field, config)
        if last not in place:
            raise ConfigError(f"config has no field {field!r}{nearest(field, sorted(fields(config)))}")
        default = place[last]
        if isinstance(default, ConfigDict):
            raise ConfigError(f"config.{field} is a section; its fields: {', '.join(fields(default))}")
        with place.unlocked():
            place[last] = parse_value(field, text, default)
    return config.lock()


def here(config: ConfigDict) -> ConfigDict:
    """The config with paths of this machine, locked: a text that begins with `~/` is a path below the home folder.

    Raises:
      ValueError: for an address, but for those of files of weights, which are downloaded; for `~/` without a home folder.
    """
    config = config.copy_and_resolve_references()
    _put_here(config)
    return config.lock()


def _put_here(section: ConfigDict, prefix: str = "") -> None:
    for name, value in list(section.items()):
        if isinstance(value, ConfigDict):
            _put_here(value, f"{prefix}{name}.")
        elif isinstance(value, str) and PLACE.match(value) and not value.startswith(DOWNLOADED):
            with naming(f"config.{prefix}{name}"), section.unlocked():
                section[name] = str(local(value))


def as_given(filled: ConfigDict, config: ConfigDict) -> ConfigDict:
    """The values of `filled`, which `here` made of `config`, but paths below the home folder as they are given there."""
    filled = filled.copy_and_resolve_references()
    for name, value in config.items():
        now = filled[name]
        with filled.unlocked():
            if isinstance(value, ConfigDict) and isinstance(now, ConfigDict):
                filled[name] = as_given(now, value)
            elif isinstance(value, str) and value.startswith("~") and now == str(local(value)):
                filled[name] = value
    return filled.lock()


def restored(config: ConfigDict, saved: Mapping[str, Any]) -> ConfigDict:
    """The config with the values of `as_json`, locked.

    A list becomes a tuple where the default is one, or None.

    Args:
      config: of `get_config()`; left as it is.
      saved: a value for every field.

    Raises:
      ConfigError: for unknown and missing fields, and a value of another type.
    """
    config = config.copy_and_resolve_references()
    ours, theirs = set(fields(config)), set(fields(ConfigDict(saved)))
    wrong = [f"the experiment file has no field {name!r}" for name in sorted(theirs - ours)]
    wrong += [f"there is no value for {name!r}" for name in sorted(ours - theirs)]
    if wrong:
        raise ConfigError("; ".join(wrong))
    _put(config, saved)
    return config.lock()


def _put(config: ConfigDict, saved: Mapping[str, Any], prefix: str = "") -> None:
    for name, value in saved.items():
        default = config[name]
        if isinstance(default, ConfigDict):
            _put(default, value, f"{prefix}{name}.")
            continue
        try:
            with config.unlocked():
                config[name] = _typed(value, default)
        except TypeError as error:
            raise ConfigError(
                f"config.{prefix}{name} is of type {type(default).__name__} (default {default!r}), not {value!r}"
            ) from error


def _typed(value: Any, default: Any) -> Any:
    """A value of JSON, its lists as the default has them."""
    if not isinstance(value, list):
        return value
    kind = list if isinstance(default, list) else tuple
    likes = default if isinstance(default, list | tuple) and default else (kind(),)
    return kind(_typed(each, likes[min(i, len(likes) - 1)]) for i, each in enumerate(value))


def _section(place: ConfigDict, section: str, field: str, config: ConfigDict) -> ConfigDict:
    found = place.get(section)
    if not isinstance(found, ConfigDict):
        raise ConfigError(f"config has no field {field!r}{nearest(field, sorted(fields(config)))}")
    return found


def fields(config: Mapping[str, Any] | ConfigDict, prefix: str = "") -> dict[str, Any]:
    """The values of a config by the dotted names of their fields."""
    found = {}
    for name, value in config.items():
        is_section = isinstance(value, ConfigDict | Mapping)
        found |= fields(value, f"{prefix}{name}.") if is_section else {prefix + name: value}
    return found


def parse_value(field: str, text: str, default: Any) -> Any:
    """The text as a value of the type of `default`.

    Raises:
      ConfigError: if it is none.
    """
    if isinstance(default, str):
        return text
    value = _literal(text)
    if isinstance(default, float) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            return float(text)
    if isinstance(default, tuple | list) and isinstance(value, tuple | list):
        return type(default)(value)
    if default is None or type(value) is type(default):
        return value
    raise ConfigError(f"config.{field} is of type {type(default).__name__} (default {default!r}), not {text!r}")


def _literal(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def as_json(config: ConfigDict) -> dict:
    """The config as JSON data.

    Raises:
      ConfigError: if it holds something else than numbers, texts, booleans, None, lists, tuples and sections.
    """
    try:
        return json.loads(json.dumps(config.to_dict()))
    except TypeError as error:
        raise ConfigError(f"the config holds something that is not data: {error}") from error
