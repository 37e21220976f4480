"""Where a run can be watched: TensorBoard, always, and Weights & Biases, if asked for.

A metric's tag is its name, led by `train/` where it has no part of its own: `train/loss`, `test/accuracy`.
"""

import contextlib
import json
import logging
import re
import secrets
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from jaxvision.errors import TrackerError, write_atomically
from jaxvision.run.damage import set_aside
from jaxvision.run.log import Clock

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]


class Tracker(Protocol):
    """What a tracker does with a run."""

    def metrics(self, step: int, metrics: Mapping[str, float], /) -> None:
        """Shows a row of the log."""
        ...

    def pictures(self, folder: Path, /) -> None:
        """The run is done: shows the PNG files of its report."""
        ...

    def close(self) -> None:
        """Gives back what the tracker holds, whether the run is done or not."""
        ...


OpenTracker = Callable[[Path, Mapping, Sequence[Row]], Tracker]
"""`(workdir, config, rows)`: opens a tracker; the config is JSON data, the rows are those of the log so far."""


class Trackers:
    """Several trackers as one, that never ends a run: a tracker that fails is reported once and left out from then on."""

    def __init__(self, trackers: Iterable[Tracker]):
        self._trackers = list(trackers)

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows a row of the log on every tracker."""
        self._each(lambda tracker: tracker.metrics(step, metrics))

    def pictures(self, folder: Path) -> None:
        """Shows the PNG files of the report on every tracker."""
        self._each(lambda tracker: tracker.pictures(folder))

    def close(self) -> None:
        """Closes every tracker."""
        self._each(lambda tracker: tracker.close())

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for tracker in list(self._trackers):
            try:
                call(tracker)
            except Exception as error:
                self._trackers.remove(tracker)
                logger.warning("%s fails: %s. The run goes on without it.", type(tracker).__name__, error)
                with contextlib.suppress(Exception):
                    tracker.close()


class TensorBoard:
    """Event files that TensorBoard shows: `tensorboard --logdir=FOLDER`, or any folder above it.

    Each start of a run adds a file, which hides what earlier ones hold of the steps that are done again. The config and
    the pictures lie in files of their own, which are replaced; the pictures are the sub-run `report`.
    """

    def __init__(self, folder: Path, config: Mapping, rows: Sequence[Row]):
        """Opens the next event file.

        Args:
          folder: for the event files; made if there is none.
          config: as JSON data; becomes the hyper-parameters.
          rows: of the log so far, to the checkpoint that the run goes on from; whatever is later is hidden.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.config = folder, flat(config)
        self._measured = {name: None for row in rows for name in row if _of_evaluation(name)}
        self._step = rows[-1]["step"] if rows else 0
        self._write_hparams(ended=False)
        self._file = _next_file(folder).open("xb", buffering=0)
        self._file.write(_record(file_version=_VERSION))
        self._file.write(_record(step=self._step + 1 if rows else 0, session_log={"status": "START"}))

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes a row; it is with the operating system when this returns."""
        values = [{"tag": tag(name), "simple_value": value} for name, value in metrics.items()]
        self._file.write(_record(step=step, summary={"value": values}))
        self._measured.update((name, None) for name in metrics if _of_evaluation(name))
        self._step = step

    def pictures(self, folder: Path) -> None:
        """Shows the PNG files of the folder, at the last step, in place of earlier ones, and marks the run as done."""
        values = [{"tag": path.stem, "image": _picture(path)} for path in sorted(folder.glob("*.png"))]
        records = [_record(step=self._step, summary={"value": [value]}) for value in values]
        (self.folder / "report").mkdir(exist_ok=True)
        _write_whole(self.folder / "report" / f"{_PREFIX}report", records)
        self._write_hparams(ended=True)

    def close(self) -> None:
        """Closes the event file."""
        self._file.close()

    def _write_hparams(self, ended: bool) -> None:
        """The config, and of which metrics it is the cause; once the run is done also that it is."""
        from tensorboardX import summary

        experiment, start, end = summary.hparams(self.config, self._measured)
        parts = [*([experiment] if self._measured else []), start, *([end] if ended else [])]
        _write_whole(self.folder / f"{_PREFIX}000000.hparams", [_record(summary=part) for part in parts])


_PREFIX = "events.out.tfevents."
_VERSION = "brain.Event:2"


def _next_file(folder: Path) -> Path:
    """TensorBoard reads the files of a run in the order of their names."""
    numbers = [path.name.removeprefix(_PREFIX)[:6] for path in folder.glob(f"{_PREFIX}*")]
    return folder / f"{_PREFIX}{max((int(n) for n in numbers if n.isdecimal()), default=0) + 1:06d}"


def _write_whole(path: Path, records: Iterable[bytes]) -> None:
    write_atomically(path, b"".join((_record(file_version=_VERSION), *records)))


def _record(**fields: Any) -> bytes:
    """An event with these fields, in the framing of a TFRecord file."""
    from tensorboardX.proto import event_pb2
    from tensorboardX.record_writer import masked_crc32c

    def checked(data: bytes) -> bytes:
        return data + struct.pack("<I", masked_crc32c(data))

    messages: Any = event_pb2
    data = messages.Event(wall_time=time.time(), **fields).SerializeToString()
    return checked(struct.pack("<Q", len(data))) + checked(data)


def _picture(path: Path) -> dict[str, Any]:
    """The PNG file as it is."""
    from PIL import Image

    with Image.open(path) as image:
        (width, height), channels = image.size, len(image.getbands())
    return {"width": width, "height": height, "colorspace": channels, "encoded_image_string": path.read_bytes()}


class WeightsAndBiases:
    """The run on Weights & Biases; one that is resumed goes on there, and nothing is sent twice."""

    def __init__(self, project: str, workdir: Path, config: Mapping, rows: Sequence[Row]):
        """Opens the run, or opens it again, and sends what it lacks of the log.

        Without a network, `WANDB_MODE=offline` keeps all in `<workdir>/wandb/`, for `wandb sync` to send.

        Args:
          project: where the run belongs.
          workdir: of the run; `wandb.txt` there keeps the run's id, and the last step that was sent.
          config: as JSON data.
          rows: of the log so far.

        Raises:
          TrackerError: if the package is missing, or Weights & Biases refuses.
        """
        try:
            import wandb
        except ImportError:
            raise TrackerError("--wandb needs the package wandb: pip install 'jaxvision[wandb]'") from None
        self._note = workdir / "wandb.txt"
        self._identity, self._sent = _noted(self._note) or (secrets.token_hex(4), -1)
        settings = wandb.Settings(silent=True, console="off", disable_git=True, save_code=False)
        try:
            self._run = wandb.init(
                project=project,
                id=self._identity,
                resume="allow",
                dir=workdir,
                config=dict(config),
                settings=settings,
            )
        except wandb.Error as error:
            raise TrackerError(f"Weights & Biases: {error}") from error
        if not self._run.offline:
            self._sent = self._run.starting_step - 1
        self._newest = self._sent
        self._keep_note()
        for row in rows:
            self.metrics(row["step"], {name: x for name, x in row.items() if name != "step" and x is not None})

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Sends a row, unless an earlier start of the run has sent it."""
        if step <= self._sent:
            return
        if step > self._newest:  # until then, more metrics of the same step may have come
            self._keep_note()
        self._run.log({tag(name): value for name, value in metrics.items()}, step=step)
        self._newest = step

    def pictures(self, folder: Path) -> None:
        """Sends the PNG files of the folder."""
        import wandb

        images = {f"report/{path.stem}": wandb.Image(str(path)) for path in sorted(folder.glob("*.png"))}
        self._run.log(images, step=max(self._run.step, self._newest))

    def close(self) -> None:
        """Returns when all is sent."""
        self._run.finish()
        self._keep_note()

    def _keep_note(self) -> None:
        write_atomically(self._note, f"{self._identity} {self._newest}\n")


def _noted(path: Path) -> tuple[str, int] | None:
    """Identity of a run and the last step that was sent; None where there is no note, or none that can be read."""
    if not path.exists():
        return None
    try:
        identity, step = path.read_text(encoding="ascii").split()
        if re.fullmatch(r"[0-9a-f]{8}", identity):
            return identity, int(step)
    except (OSError, ValueError):
        pass
    logger.warning("%s can't be read; kept as %s. A new run begins on Weights & Biases.", path, set_aside(path).name)
    return None


class Speed:
    """How fast a run trains, as metrics for the trackers: `speed/seconds_per_step` and `speed/images_per_second`.

    Evaluations, checkpoints and the first step of this process, which is mostly compilation, don't count.
    """

    def __init__(self, clock: Clock, batch_size: int, every: int, write: Callable[[int, Mapping[str, float]], None]):
        """Makes metrics every `every` steps, from the clock's `data` and `step` parts, and writes them."""
        self.clock, self.batch_size, self.every, self.write = clock, batch_size, every, write
        self.newest: dict[str, float] = {}
        """`seconds_per_step` and `images_per_second`, once there is an interval."""
        self._since: tuple[int, float] | None = None

    def step(self, done: int) -> None:
        """Called after every step with the number of the steps done."""
        if self._since is not None and done % self.every:
            return
        seconds = self.clock.training
        if self._since is not None:
            each = (seconds - self._since[1]) / (done - self._since[0])
            self.newest = {"seconds_per_step": each, "images_per_second": self.batch_size / max(each, 1e-9)}
            self.write(done, {f"speed/{name}": value for name, value in self.newest.items()})
        self._since = (done, seconds)


def tag(name: str) -> str:
    """The name of a metric on a tracker."""
    return _unicode(name if "/" in name else f"train/{name}")


def _of_evaluation(name: str) -> bool:
    """Whether it is a main metric of an evaluation, not one of a single class."""
    return name.count("/") == 1 and not name.startswith("speed/")


def flat(config: Mapping, prefix: str = "") -> dict[str, bool | float | str]:
    """The fields of the config by their dotted names; what is neither number, truth value nor text is JSON text."""
    fields = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            fields.update(flat(value, f"{prefix}{name}."))
        else:
            fields[prefix + name] = value if isinstance(value, bool | int | float) else _text(value)
    return fields


def _text(value: Any) -> str:
    return _unicode(value if isinstance(value, str) else json.dumps(value))


def _unicode(text: str) -> str:
    """The text; bytes of a file's name that are no UTF-8 are escaped."""
    return text.encode(errors="backslashreplace").decode()
