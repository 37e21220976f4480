"""The plan of a sweep or an ablation: its members, resolved and checked before anything starts, written once.

A member is a resolved config with the fingerprints of code and data. Its workdir's name is readable and ends in a short hash
of these. The state of a member is in its workdir alone (`launch.state`); the plan says what there is to do, never what is
done.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ml_collections import ConfigDict

from jaxvision import experiment as experiments
from jaxvision.errors import ConfigError, DataError, WorkdirError, creating, nearest, raised_as, write_atomically
from jaxvision.run import config as configs
from jaxvision.run.own_modules import own_modules
from jaxvision.run.workdir import code_of
from launch.values import Change

try:
    import fcntl
except ImportError:  # not a POSIX system: no lock
    fcntl = None

FILE = "plan.json"
FORMAT = 1
BASELINE = "baseline"
SEED = "seed"
"""The field of a config that a seed sets."""
LONGEST_NAME = 80
Variant = Change | Callable[[ConfigDict], None]
"""What a variant changes: values of fields, or a function that changes an unlocked config in place."""


class Deciding(NamedTuple):
    """The figure that decides, fixed before the first run."""

    figure: str
    """Such as `test/accuracy`."""
    better: Literal["higher", "lower"] = "higher"


class Member(NamedTuple):
    """One run of a plan."""

    name: str
    """Name of its workdir."""
    variant: str
    """What the members with other seeds share."""
    seed: int | None
    overrides: dict[str, str]
    """Texts for `--config.FIELD=`, precision resolved."""
    config: dict[str, Any]
    """Config as resolved, in JSON."""
    data: dict[str, str]
    """Fingerprints of the data, by stream."""
    read: frozenset[str]
    """Fields that `build` and the opening of the data read."""

    @property
    def hash(self) -> str:
        """What its name ends in."""
        return self.name.rpartition("-")[2]


class Plan(NamedTuple):
    """What there is to run."""

    experiment: Path
    code: str
    """Fingerprint of the experiment file and its own modules, layout and comments left aside."""
    members: tuple[Member, ...]
    deciding: Deciding | None = None
    baseline: str | None = None
    """The variant that the others are compared with."""


def make(
    experiment: Path,
    variants: Mapping[str, Variant],
    seeds: Sequence[int] = (),
    overrides: Mapping[str, str] = {},
    deciding: Deciding | None = None,
    baseline: str | None = None,
) -> Plan:
    """The plan of these variants, each with every seed; builds every experiment and opens its data.

    Args:
      experiment: the experiment file.
      variants: by name, what each changes.
      seeds: values of `config.seed`; none leaves it as it is.
      overrides: dotted field names to texts, for all members.
      deciding: the figure that decides.
      baseline: the variant that the others are compared with.

    Raises:
      ConfigError: no variant, an unknown field, a value of another type, a field that nothing reads, two equal members.
      DataError: if the data of a member can't be opened.
    """
    if not variants:
        raise ConfigError("the sweep is empty: it has no variant")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"the seeds occur twice: {list(seeds)}")
    members = []
    for seed in seeds or (None,):
        for name, variant in variants.items():
            with raised_in(name):
                members.append(_member(experiment, name, variant, seed, overrides))
    check_different(members)
    return Plan(experiment.absolute(), code(experiment), tuple(members), deciding, baseline)


def _member(experiment: Path, name: str, variant: Variant, seed: int | None, overrides: Mapping[str, str]) -> Member:
    fixed = dict(overrides) if seed is None else {**overrides, SEED: str(seed)}
    changed = changes(experiment, variant, fixed)
    texts = {**fixed, **changed}
    read: set[str] = set()
    built, recipe = configs.build(experiment, texts, read=read)
    with raised_as(DataError):
        data = {stream: each.about().fingerprint for stream, each in experiments.streams(built).items()}
    unread = sorted(field for field in {*changed, *(() if seed is None else (SEED,))} if field not in read)
    if unread:
        raise ConfigError(f"nothing reads config.{unread[0]}: a change of it changes nothing")
    if "precision" in recipe.config:
        texts["precision"] = recipe.config["precision"]
    label = name if seed is None else f"{name}-seed{seed}"
    key = _hash({"config": recipe.config, "code": code(experiment), "data": data})[:8]
    return Member(f"{_plain(label)}-{key}", name, seed, texts, recipe.config, data, frozenset(read))


def changes(experiment: Path, variant: Variant, overrides: Mapping[str, str]) -> dict[str, str]:
    """The fields that a variant sets, as texts for the command line.

    Raises:
      ConfigError: an unknown field, or a value that no text stands for.
    """
    default = configs.load(experiment).get_config()
    base = configs.configure(default, overrides)
    known = configs.fields(base)
    if callable(variant):
        changed = base.copy_and_resolve_references().unlock()
        variant(changed)
        fields = configs.fields(changed)
        values = {name: value for name, value in fields.items() if name not in known or value != known[name]}
    else:
        values = dict(variant)
    for name in values:
        if name not in known:
            raise ConfigError(f"config has no field {name!r}{nearest(name, sorted(known))}")
    return {name: text_of(name, value, configs.fields(default)[name]) for name, value in values.items()}


def text_of(field: str, value: Any, default: Any) -> str:
    """The text that stands for the value of a field on the command line.

    Raises:
      ConfigError: if there is none.
    """
    texts = [value, repr(value)] if isinstance(value, str) else [repr(value)]
    for text in texts:
        parsed = configs.parse_value(field, text, default)
        if isinstance(value, str) and (text is value) and not isinstance(default, str):
            return text  # as given on a command line
        if parsed == value and type(parsed) is type(value):
            return text
        if isinstance(parsed, float) and parsed == value:
            return text
    raise ConfigError(f"config.{field} can't be set to {value!r} on a command line")


def check_different(members: Iterable[Member]) -> None:
    """Raises ConfigError for two members that are the same run."""
    seen: dict[str, Member] = {}
    for member in members:
        other = seen.setdefault(member.hash, member)
        if other is not member:
            raise ConfigError(f"{other.variant!r} and {member.variant!r} are the same run: their configs are equal")


@contextmanager
def raised_in(variant: str) -> Iterator[None]:
    """Inside this block an error of the user's says which variant it is of."""
    try:
        yield
    except (ConfigError, DataError) as error:
        raise type(error)(f"variant {variant!r}: {error}") from error


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a config in JSON by the dotted names of their fields."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def code(experiment: Path) -> str:
    """Fingerprint of an experiment file and of the modules that it imports from its own folder."""
    files = {"": experiment, **own_modules(experiment)}
    return _hash({name: code_of(file) for name, file in files.items()})


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _plain(label: str) -> str:
    """The label as a part of a file name that needs no quotes in a shell."""
    return re.sub(r"[^\w.=+-]+", "_", label)[:LONGEST_NAME].strip("_.-") or "run"


def write(plan: Plan, folder: Path) -> Path:
    """Writes the plan into a folder, which is made if there is none; a plan that is there already stays, if it is the same.

    Raises:
      WorkdirError: if the folder holds another plan, or can't be written.
    """
    path = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with creating(path) as partial:
            partial.write_text(_text(plan), encoding="utf-8")
    except FileExistsError:
        check_same(read(folder), plan, path)
    except OSError as error:
        raise WorkdirError(f"can't write the plan {path}: {error.strerror or error}") from error
    return path


def check_same(known: Plan, plan: Plan, path: Path) -> None:
    """Raises WorkdirError if the plan in the folder is another one."""
    ours, theirs = ({member.name for member in each.members} for each in (plan, known))
    if known.code != plan.code:
        raise WorkdirError(f"{path} is of other code: {plan.experiment} has changed since; choose another folder")
    if ours != theirs or known.deciding != plan.deciding or known.baseline != plan.baseline:
        new, gone = sorted(ours - theirs), sorted(theirs - ours)
        what = f"{len(new)} of these runs are not in it ({', '.join(new[:3])}), {len(gone)} of its are not here"
        raise WorkdirError(f"{path} is another plan: {what}; --extend adds to it, or choose another folder")


def extend(known: Plan, plan: Plan, folder: Path) -> Plan:
    """The plan in the folder with what the other has more, written.

    Raises:
      WorkdirError: if the other is of other code or decides by another figure, or the file can't be written.
    """
    if known.code != plan.code or (known.deciding, known.baseline) != (plan.deciding, plan.baseline):
        raise WorkdirError(f"{folder / FILE} can't be extended: it is of other code, or decides by another figure")
    try:
        with _alone(folder):
            known = read(folder)  # another launcher may have extended it meanwhile
            names = {member.name for member in known.members}
            more = known._replace(members=(*known.members, *(m for m in plan.members if m.name not in names)))
            write_atomically(folder / FILE, _text(more))
    except OSError as error:
        raise WorkdirError(f"can't write the plan {folder / FILE}: {error.strerror or error}") from error
    return more


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Inside this block no other launcher on this file system extends the plan, where it has locks."""
    with (folder / "plan.lock").open("a") as lock:
        if fcntl is not None:
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def read(folder: Path) -> Plan:
    """The plan in a folder.

    Raises:
      WorkdirError: if there is none, or its file was changed since it was written.
    """
    path = folder / FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        checksum = data.pop("sha256")
    except FileNotFoundError:
        raise WorkdirError(f"there is no plan in {folder}: no file {path.name}") from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise WorkdirError(f"the plan {path} can't be read: {error}") from error
    if data.get("format") != FORMAT:
        raise WorkdirError(f"the plan {path} is of format {data.get('format')!r}; this version reads {FORMAT}")
    if checksum != _hash(data):
        raise WorkdirError(f"the plan {path} was changed by hand or damaged; make a new one in another folder")
    members = tuple(Member(**{**each, "read": frozenset(each["read"])}) for each in data["members"])
    deciding = None if data["deciding"] is None else Deciding(*data["deciding"])
    return Plan(Path(data["experiment"]), data["code"], members, deciding, data["baseline"])


def _text(plan: Plan) -> str:
    data = {
        "format": FORMAT,
        "experiment": str(plan.experiment),
        "code": plan.code,
        "deciding": plan.deciding and list(plan.deciding),
        "baseline": plan.baseline,
        "members": [{**member._asdict(), "read": sorted(member.read)} for member in plan.members],
    }
    return json.dumps({**data, "sha256": _hash(data)}, indent=1) + "\n"
