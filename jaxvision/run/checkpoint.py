"""Checkpoints on disk, by Orbax: saved asynchronously, verified when read, never half there."""

import contextlib
import itertools
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree
from orbax.checkpoint import v1 as ocp

from jaxvision.errors import CheckpointError
from jaxvision.experiment import Keep, check_keep
from jaxvision.run import notes as sealing
from jaxvision.run import retention
from jaxvision.run.copies import apart, copied
from jaxvision.run.damage import of_machine
from jaxvision.run.digest import digest, linear_digest
from jaxvision.run.exclusive import in_main_thread, in_turn, undisturbed
from jaxvision.run.notes import Scored
from jaxvision.run.structure import abstract, check_same, named_types

logger = logging.getLogger(__name__)
# Where a file can't be read, Orbax logs the failure of every array besides raising it.
logging.getLogger("asyncio").addFilter(lambda record: "exception was never retrieved" not in record.getMessage())
Which = Literal["best", "latest"] | int
"""A checkpoint: one of the two, or that of a step."""
MISTAKEN = frozenset("[]*?\\")
"""Letters of a path that Orbax, which looks for files by patterns, or TensorStore takes for something else."""
DIGEST = "mixed_digest"
"""The name of the digest in a checkpoint, beside the state."""
OLDER = {"digest": linear_digest}
"""Digests that checkpoints of older versions have, by their names there."""
LISTED = 32
"""Steps that Orbax may list although they were deleted."""
OPEN_FILES = Path("/proc/self/fd")
"""Where Linux names the open files and folders of this process."""


class Saved(NamedTuple):
    """A checkpoint as read."""

    step: int
    state: PyTree
    notes: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run, in one folder, a subfolder a step.

    Where a run has several processes, all of them call the same methods in the same order.
    """

    def __init__(self, folder: Path, keep: Keep = Keep(), *, read_only: bool = False):  # noqa: B008  (immutable)
        check_keep(keep)
        self.folder = Path(folder)
        self.keep = keep
        self.read_only = read_only
        """Leaves the folder as it is: nothing is cleaned up, no damaged checkpoint moved."""
        self._aside = aside_of(self.folder)
        self._proven = False
        """Whether a checkpoint in this folder could be read: one that was saved, or that was there."""
        self._writer = ThreadPoolExecutor(1, "checkpoints")
        self._pending: tuple[int, Sequence[int], Future] | None = None
        """The step that is being saved, the steps that go once it is on disk, and what ends when both are done."""
        self._metrics: dict[int, Mapping[str, float] | None] = {}
        """Metrics of the checkpoints that were saved or asked about; None for notes that have not their checksum."""
        self._unread: dict[int, CheckpointError] = {}
        """Why the metrics of a checkpoint could not be read when they were last asked for: the machine's reason."""
        self._named = contextlib.ExitStack()
        """Ends the other name of the folder, if it has one."""
        self._known_as = self._plainly_named(self.folder.absolute())
        self._open()

    def _plainly_named(self, folder: Path) -> Path:
        """A path to the folder without letters that Orbax takes for a pattern, or TensorStore for a `/`: another name of it.

        Linux has one for every open folder, which leaves nothing behind; elsewhere it is a link.
        """
        if not MISTAKEN.intersection(str(folder)):
            return folder
        if not self.read_only:
            folder.mkdir(parents=True, exist_ok=True)
        try:
            if OPEN_FILES.is_dir():
                opened = os.open(folder, os.O_RDONLY)
                self._named.callback(os.close, opened)
                return OPEN_FILES / str(opened)
            link = Path(self._named.enter_context(tempfile.TemporaryDirectory(prefix="jaxvision-")), "checkpoints")
            link.symlink_to(folder)
        except OSError as error:
            letters = " ".join(sorted(MISTAKEN.intersection(str(folder))))
            raise CheckpointError(f"for the letters {letters} in {folder} it needs a link to it: {error}") from error
        return link

    @in_turn
    def _open(self) -> None:
        if not self.read_only:
            _once(self._tidy)
        self._gone: set[int] = set()
        """Steps that were deleted, which Orbax still lists."""
        self._check_metrics_of_older_versions()
        try:
            self._orbax = ocp.training.Checkpointer(
                str(self._known_as),
                save_decision_policy=_WheneverAsked(),
                cleanup_tmp_directories=not self.read_only,
            )
        except (OSError, ValueError) as error:
            raise CheckpointError(f"the checkpoints in {self.folder} can't be opened: {_first_line(error)}") from error

    def _check_metrics_of_older_versions(self) -> None:
        """Moves metrics aside that Orbax would fail on; raises CheckpointError where nothing may be moved."""
        if not self.read_only:
            _once(self._move_unreadable_metrics)
        elif unreadable := sealing.unreadable_metrics(self.folder):
            raise CheckpointError(f"{unreadable[0]} can't be read; remove it, and that checkpoint is the best of none")

    def _move_unreadable_metrics(self) -> None:
        for path in sealing.unreadable_metrics(self.folder):
            self._put_aside(path, f"{path.parent.name}.metrics")
            logger.warning("%s can't be read and was moved aside; that checkpoint is the best of none", path)

    @property
    def steps(self) -> list[int]:
        """The steps that have a checkpoint, ascending; one that is being written is waited for.

        Raises:
          CheckpointError: if it can't be written.
        """
        self.wait()
        return [checkpoint.step for checkpoint in self._there()]

    def _there(self) -> list[Any]:
        return [checkpoint for checkpoint in self._orbax.checkpoints if checkpoint.step not in self._gone]

    def best_step(self) -> int | None:
        """The step of the best checkpoint by `keep.by`, of equal ones the earliest; None if none has that metric.

        Raises:
          CheckpointError: if the metrics of one can't be read for the machine's reason, so that it may be the best; if
            one that is being written can't be.
        """
        self.wait()
        scored = self._scored()
        unread = [each.step for each in scored if not each.known and each.step in self._unread]
        if unread:
            raise self._unread[unread[0]]
        return next(iter(retention.best(scored, self.keep)), None)

    def chosen(self, which: Which | None) -> int:
        """The step of the best, the latest or this checkpoint; None: of the best where there is one, else the latest.

        Raises:
          NoSuchCheckpoint: if there is none such.
          CheckpointError: if the best is not known, as for `best_step`.
        """
        wanted = which == "best" or (which is None and self.keep.best > 0)
        steps, best = self.steps, self.best_step() if wanted else None
        known = f"there are: {', '.join(map(str, steps)) or 'none'}"
        if which is None:
            which = "best" if self.keep.best and best is not None else "latest"
        if which == "best" and best is None:
            raise NoSuchCheckpoint(f"{self.folder} has no best checkpoint (by {self.keep.by!r}); {known}")
        step = best if which == "best" else max(steps, default=None) if which == "latest" else which
        if step not in steps:
            raise NoSuchCheckpoint(f"{self.folder} has no checkpoint {which}; {known}")
        return cast(int, step)

    def _scored(self) -> list[Scored]:
        """Checkpoints with the metrics of their notes, which an older version kept beside them; none without `keep.by`."""
        if self.keep.by is None:
            return [Scored(step, None) for step in self.steps]
        return [self._score(each) for each in self._there()]

    def _score(self, checkpoint: Any) -> Scored:
        """A checkpoint with its metrics; not known where they can't be read: nothing that may be the best is deleted."""
        step = checkpoint.step
        if step not in self._metrics:
            path = self.folder / str(step)
            try:
                metrics = self._notes(step).metrics
                self._metrics[step] = (checkpoint.metrics if metrics is None else metrics) or {}
                self._unread.pop(step, None)
            except Exception as error:
                if of_machine(error):
                    self._unread[step] = _unreadable(path, error)
                else:
                    self._metrics[step] = None
                if path.is_dir():  # or else it was deleted meanwhile
                    logger.warning(
                        "%s",
                        self._unread.get(step)
                        or f"checkpoint {path} is damaged, the best of none: {_first_line(error)}",
                    )
        metrics = self._metrics.get(step)
        return Scored(step, metrics, known=metrics is not None)

    def _notes(self, step: int) -> sealing.Notes:
        metadata = ocp.metadata(str(self._known_as / str(step)))
        return sealing.unsealed(step, cast(dict, metadata.custom_metadata))

    @in_turn
    def save(self, step: int, state: PyTree, notes: Mapping[str, Any], metrics: Mapping[str, float] | None) -> None:
        """Starts saving; returns when the arrays are copied, while the writing goes on.

        Args:
          step: names the checkpoint; one that exists already is written anew only to give it `metrics`.
          state: any tree of arrays.
          notes: anything JSON.
          metrics: of the evaluation at this step, if there was one; they say which checkpoint is best.

        Raises:
          CheckpointError: if this or the previous checkpoint can't be written.
        """
        self.wait()
        if step in self.steps:
            if not metrics:
                return
            self._set_aside(step)
        comparable = {k: float(v) for k, v in (metrics or {}).items() if math.isfinite(v)}
        self._metrics[step] = comparable
        new = Scored(step, comparable if self.keep.by is not None else None)
        old = retention.superfluous([*self._scored(), new], self.keep)
        metadata = sealing.sealed(step, notes, comparable)
        if apart():
            written = partial(self._write, step, metadata, copied(state))
        else:
            with _writing(self.folder / str(step)):
                written = self._begin(step, metadata, state).result
        self._pending = (step, old, self._writer.submit(self._commit, written, old))
        if not in_main_thread():
            self.wait()
        if not self._proven:
            self._prove(step, state)

    def _begin(self, step: int, metadata: dict[str, Any], state: PyTree) -> Any:
        """Copies the arrays to where Orbax writes from; the result is there when they are on disk."""
        tree = {"state": state, DIGEST: digest(state)}
        return self._orbax.save_async(step, tree, force=True, custom_metadata=metadata)

    def _write(self, step: int, metadata: dict[str, Any], state: PyTree) -> None:
        self._begin(step, metadata, state).result()

    def _commit(self, written: Callable[[], object], old: Sequence[int]) -> None:
        """Returns when the checkpoint is on disk, and what it takes the place of is gone."""
        written()
        if jax.process_index() == 0:
            shutil.rmtree(self._aside, ignore_errors=True)
            self._delete(old)

    def _delete(self, steps: Sequence[int]) -> None:
        for step in steps:
            retention.delete(self.folder / str(step))

    def _prove(self, step: int, state: PyTree) -> None:
        """Reads the first checkpoint back, so that what can't be read is told now, not when it is needed.

        Raises:
          CheckpointError: if it can't be read.
        """
        self.wait()
        saved = self._load_or_tell(step, state)
        if isinstance(saved, DamagedCheckpoint):
            raise CheckpointError(f"what was written can't be read back: {saved}") from saved

    def wait(self) -> None:
        """Returns when what was saved is on disk.

        Raises:
          CheckpointError: if it could not be written.
        """
        if self._pending is None:
            return
        step, old, committed = self._pending
        self._pending = None
        with _writing(self.folder / str(step)):
            committed.result()
        self._gone.update(old)
        if len(self._gone) >= LISTED:
            self._forget()

    def _forget(self) -> None:
        """Lets Orbax list the folder anew: a list that only grows makes each save slower than the one before."""
        with contextlib.suppress(OSError):  # next time, then
            self._orbax.reload()
        self._gone.intersection_update(each.step for each in self._orbax.checkpoints)
        self._metrics = {step: metrics for step, metrics in self._metrics.items() if step in self.steps}

    @in_turn
    def close(self) -> None:
        """Waits, then gives back what Orbax holds."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()
            with _writing(self.folder):
                self._orbax.close()
            self._named.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, error, trace) -> None:
        with contextlib.suppress(Exception) if error else contextlib.nullcontext():
            self.close()

    @in_turn
    def newest(self, like: PyTree) -> Saved | None:
        """The newest checkpoint that can be read, or None where there is none at all.

        A damaged one is reported, moved aside into `<folder>.damaged/` and the one before it is taken.

        Args:
          like: a tree of arrays (or `ShapeDtypeStruct` with a sharding) of the structure, shapes and dtypes that were saved.

        Raises:
          CheckpointError: if there are checkpoints but none can be read, or if one holds another tree than `like`.
        """
        self.wait()
        damaged: list[tuple[int, DamagedCheckpoint]] = []
        for step in sorted(self.steps, reverse=True):
            saved = self._load_or_tell(step, like)
            if isinstance(saved, DamagedCheckpoint):
                damaged.append((step, saved))
                continue
            damaged += [] if self.read_only else self._with_damaged_notes(step)
            if damaged and not self.read_only:
                self._orbax.close()
                _once(lambda: self._move_aside(damaged, step))  # noqa: B023
                self._open()
            if not self.read_only:
                self._drop(retention.superfluous(self._scored(), self.keep))
            return saved
        if damaged:
            raise CheckpointError(
                f"no checkpoint of {self.folder} can be read: {'; '.join(str(e) for _, e in damaged)}"
            )
        return None

    def _drop(self, steps: Sequence[int]) -> None:
        """Deletes what a process that died had not come to, now that a newer one is known to be good."""
        with _writing(self.folder):
            _once(lambda: self._delete(steps))
        self._gone.update(steps)

    def _with_damaged_notes(self, newest: int) -> "list[tuple[int, DamagedCheckpoint]]":
        """Checkpoints before the newest whose notes are damaged; not those that the machine can't read at the moment."""
        found = []
        for step in [each for each in self.steps if each < newest]:
            path = self.folder / str(step)
            error = None
            try:
                self._notes(step)
            except Exception as caught:
                error = caught
                if of_machine(caught):
                    logger.warning("%s", _unreadable(path, caught))
            momentary = not on_all(not of_machine(error))
            if not on_all(error is None) and not momentary:
                text = "another process can't read it" if error is None else _first_line(error)
                found.append((step, DamagedCheckpoint(f"checkpoint {path} is damaged: {text}")))
        return found

    def _load_or_tell(self, step: int, like: PyTree) -> "Saved | DamagedCheckpoint":
        """The checkpoint, or that it is damaged: on every process, if it is on one."""
        try:
            saved = self.load(step, like)
        except DamagedCheckpoint as error:
            saved = error
        fine = not isinstance(saved, DamagedCheckpoint)
        if on_all(fine) or not fine:
            return saved
        return DamagedCheckpoint(f"checkpoint {self.folder / str(step)} is damaged: another process can't read it")

    @in_turn
    @undisturbed
    def load(self, step: int, like: PyTree) -> Saved:
        """The checkpoint of this step, verified against the digest that was saved with it.

        Raises:
          DamagedCheckpoint: if it can't be read, or is not what was saved.
          CheckpointError: if it holds another tree than `like`.
        """
        self.wait()
        path = self.folder / str(step)
        try:
            metadata = self._orbax.metadata(step)
            saved_types = named_types(metadata.metadata)
            notes = sealing.unsealed(step, cast(dict, metadata.custom_metadata)).notes
            if not saved_types:
                raise ValueError("it does not say what it holds")
        except Exception as error:
            raise _unreadable(path, error) from error
        kind = next((name for name in OLDER if name in saved_types), DIGEST)
        wanted = jax.tree.map(abstract, {"state": like, kind: jax.ShapeDtypeStruct((), jnp.uint32)})
        check_same(path, saved_types, named_types(wanted))
        try:
            tree = self._orbax.load(step, wanted)
        except Exception as error:
            raise _unreadable(path, error) from error
        if int(tree[kind]) != int(OLDER.get(kind, digest)(tree["state"])):
            raise DamagedCheckpoint(f"checkpoint {path} is damaged: its arrays are not the ones that were saved")
        self._proven = True
        return Saved(step, tree["state"], notes)

    def _set_aside(self, step: int) -> None:
        """A checkpoint that is to be written anew stays beside the folder until its successor is on disk."""

        def move() -> None:
            self._aside.mkdir(exist_ok=True)
            os.replace(self.folder / str(step), self._aside / str(step))

        _once(move)
        self._orbax.reload()
        self._gone.clear()

    def _tidy(self) -> None:
        """Clears up after a process that died: what was set aside is put back unless its successor is on disk."""
        for path in self._aside.iterdir() if self._aside.is_dir() else ():
            if not (self.folder / path.name).exists():
                os.replace(path, self.folder / path.name)
        shutil.rmtree(self._aside, ignore_errors=True)
        retention.sweep(self.folder)

    def _move_aside(self, damaged: Sequence[tuple[int, Exception]], good: int) -> None:
        for step, error in damaged:
            aside = self._put_aside(self.folder / str(step), str(step))
            self._metrics.pop(step, None)
            logger.warning("%s. It was moved to %s; going on from the checkpoint of step %d.", error, aside, good)

    def _put_aside(self, path: Path, name: str) -> Path:
        """Moves what is damaged into the folder for it; returns where it is now."""
        folder = self.folder.with_name(self.folder.name + ".damaged")
        folder.mkdir(exist_ok=True)
        names = (f"{name}.{n}" if n else name for n in itertools.count())
        aside = next(folder / each for each in names if not (folder / each).exists())
        os.replace(path, aside)
        return aside


def aside_of(folder: Path) -> Path:
    """Where a checkpoint stands while it is written anew."""
    return folder.with_name(folder.name + ".replaced")


def _once(action: Callable[[], Any]) -> None:
    """Done by the first process; the others wait for it."""
    if jax.process_index() == 0:
        action()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("jaxvision.run.checkpoint")


def on_all(fine: bool) -> bool:
    """Whether it is so on every process."""
    return fine if jax.process_count() == 1 else bool(np.all(multihost_utils.process_allgather(np.asarray(fine))))


class NoSuchCheckpoint(CheckpointError):
    """A checkpoint that was asked for and is not there."""


class DamagedCheckpoint(CheckpointError):
    """A checkpoint that is not what was saved."""


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    """Damage, unless the error says that the machine, not the checkpoint, is at fault."""
    text = _first_line(error)
    if of_machine(error):
        return CheckpointError(f"checkpoint {path} could not be read: {text}")
    return DamagedCheckpoint(f"checkpoint {path} is damaged: {text}")


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turns any error of the block into a `CheckpointError` that names the path."""
    try:
        yield
    except Exception as error:
        raise CheckpointError(f"checkpoint {path} could not be written: {_first_line(error)}") from error


class _WheneverAsked:
    """The loop decides when to save, not Orbax."""

    def should_save(self, *args, **kwargs) -> bool:
        return True
