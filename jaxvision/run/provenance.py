"""What a run was made with: code, packages, machine."""

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from jaxvision.machine import limits

LONGEST_PATCH = 10_000_000
"""Bytes; a longer patch is cut."""
SECONDS_FOR_GIT = 20.0
"""Time limit of a git command; one that takes longer counts as failed."""
ENVIRONMENT = ("XLA_", "JAX_", "LIBTPU_", "CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE", "OMP_NUM_THREADS")
"""How the names of the environment variables begin that change what is computed, or how fast."""


class Repository(NamedTuple):
    """A git repository as it stood."""

    root: Path
    commit: str | None
    """None before the first commit."""
    changes: tuple[str, ...]
    """The lines of `git status --short`: files that differ from the commit, `??` before those unknown to git."""
    patch: str
    """The difference from the commit to the files, in the form of `git apply`; Python files unknown to git are part of it."""

    @property
    def dirty(self) -> bool:
        """Whether the code is not that of the commit: a file that it holds was changed, or one of Python is not in it."""
        return bool(self.patch) or (self.commit is None and bool(self.changes))


class Provenance(NamedTuple):
    """What a run was made with."""

    versions: dict[str, str]
    machine: dict[str, Any]
    repositories: tuple[Repository, ...]
    """First that of the experiment file, or of the working directory, then that of jaxvision if it is another."""

    def as_json(self) -> dict[str, Any]:
        """The machine, and what each repository stood at."""
        return {**self.machine, "git": self.commits()}

    def commits(self) -> list[dict[str, Any]]:
        """What each repository stood at."""
        return [{"root": str(each.root), "commit": each.commit, "dirty": each.dirty} for each in self.repositories]

    def patch(self) -> str:
        """What differs from the commits, repository by repository; empty if nothing does."""
        return "".join(_headed_patch(each) for each in self.repositories if each.dirty)


def take(source: Path | None) -> Provenance:
    """The provenance of a run of this experiment file, or of none but the program in this folder, here and now."""
    beside = Path.cwd() if source is None else source.absolute().parent
    found = [repository(folder) for folder in (beside, Path(__file__).parent)]
    by_root = {each.root: each for each in found if each is not None}
    return Provenance(versions(), machine(), tuple(by_root.values()))


def versions() -> dict[str, str]:
    """The versions of Python and of every package that can be imported, by name."""
    found = {"python": platform.python_version()}
    packages = [(package.metadata["Name"], package.version) for package in metadata.distributions()]
    for name, version in sorted(package for package in packages if package[0]):
        found.setdefault(name.lower(), version)
    return found


def machine() -> dict[str, Any]:
    """Devices, drivers, processor, memory in bytes, and the environment variables that matter."""
    import jax  # here, so that a workdir is read without it

    devices = jax.devices()
    return {
        "devices": {"kind": devices[0].device_kind, "count": len(devices), "processes": jax.process_count()},
        "backend": devices[0].client.platform,
        "backend_version": devices[0].client.platform_version,
        "system": platform.platform(),
        "processor": _processor(),
        "cores": limits.cores(),
        "memory": limits.memory(),
        "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith(ENVIRONMENT)},
    }


def repository(folder: Path) -> Repository | None:
    """The git repository that holds the folder; None if there is none, or no git."""
    root = _git(folder, "rev-parse", "--show-toplevel")
    if root is None:
        return None
    top = Path(root.rstrip("\n"))
    commit = _git(top, "rev-parse", "--verify", "HEAD")
    changes = _git(top, "status", "--short", "--untracked-files=normal") or ""
    try:
        patch = _patch(top) if commit and changes else ""
    except OSError as error:  # a full or no temporary folder ends no run
        patch = f"# the patch could not be made: {error}\n"
    return Repository(top, commit.strip() if commit else None, tuple(changes.splitlines()), patch)


def _patch(root: Path) -> str:
    """Made with a copy of the index, in which Python files unknown to git are announced."""
    index = _git(root, "rev-parse", "--git-path", "index")
    with tempfile.TemporaryDirectory() as scratch:
        if index is not None and (root / index.strip()).exists():
            shutil.copyfile(root / index.strip(), Path(scratch, "index"))
        other = {"GIT_INDEX_FILE": str(Path(scratch, "index"))}
        _git(root, "add", "--intent-to-add", "--", "*.py", environment=other)
        diff = ("diff", "HEAD", "--binary", "--no-color", "--no-ext-diff", "--no-textconv")
        made = _git(root, *diff, environment=other)
        return "# the patch could not be made\n" if made is None else made


def _headed_patch(each: Repository) -> str:
    lines = [f"# repository {each.root}, commit {each.commit or 'none yet'}", *(f"# {line}" for line in each.changes)]
    return "\n".join(lines) + "\n" + each.patch


def _git(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> str | None:
    """What git prints, cut where it is too long; None if it fails, takes too long, or lacks git or a temporary file."""
    quiet = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", **(environment or {})}
    here = {
        name: value for name, value in os.environ.items() if name not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
    }
    try:
        with tempfile.TemporaryFile() as printed:
            subprocess.run(
                ["git", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false", *arguments],
                cwd=folder,
                env={**here, **quiet},
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.DEVNULL,
                timeout=SECONDS_FOR_GIT,
                check=True,
            )
            size = printed.tell()
            printed.seek(0)
            text = printed.read(LONGEST_PATCH).decode("utf-8", errors="replace")
    except (OSError, subprocess.SubprocessError):
        return None
    return text if size <= LONGEST_PATCH else f"{text}\n# cut: the whole has {size:,} bytes\n"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())
