"""Weights from Google's storage, by HTTPS: an interrupted download is resumed, hashes are checked.

In: a bucket and an object. Out: the object as a file below $XDG_CACHE_HOME/mixer-serving. Beside
the file lies the storage's record of the object: ETag, length, CRC32C and MD5 (`x-goog-hash`). An
incomplete download continues at its end if the object is still the same (`If-Range`). The hashes
are compared each time before the file is used. STORAGE_EMULATOR_HOST, a variable of Google's own
libraries, names another server.
"""

import base64
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import google_crc32c
import httpx2
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from export.pretrained.failure import DownloadError, UnreachableError
from export.progress import console, note

GOOGLE = "https://storage.googleapis.com"
# The most attempts in a row that receive no data.
ATTEMPTS = 4
_TIMEOUT = httpx2.Timeout(30.0, connect=10.0)
_PIECE = 1 << 20


class _WorthRepeatingError(Exception):
    """The storage is busy or the connection broke; the message says which."""


@dataclasses.dataclass(frozen=True)
class _Record:
    """The storage's record of an object."""

    url: str
    etag: str
    length: int
    crc32c: str | None  # base64 of 4 bytes, big-endian
    md5: str | None  # base64; an object that was composed of other objects has none


def fetch_object(bucket: str, name: str) -> Path:
    """The path of the object's file; raises DownloadError."""
    host = os.environ.get("STORAGE_EMULATOR_HOST") or GOOGLE
    base = (host if "://" in host else f"http://{host}").rstrip("/")
    url = f"{base}/{bucket}/{quote(name, safe='/')}"
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    target = Path(caches) / "mixer-serving" / "pretrained" / bucket / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target.with_name(f"{target.name}.lock")):
            _fetch(url, target)
    except OSError as error:
        raise DownloadError(f"{target}: cannot be written ({error.strerror or error})") from None
    return target


def _fetch(url: str, target: Path) -> None:
    about = target.with_name(f"{target.name}.json")
    part = target.with_name(f"{target.name}.partial")
    record = _read_record(about, url)
    if target.exists() and record is not None:
        _check(target, about, record)
        return
    if record is None:
        part.unlink(missing_ok=True)
    attempts = ATTEMPTS
    while record is None or not part.exists() or part.stat().st_size < record.length:
        before = part.stat().st_size if part.exists() else 0
        try:
            record = _receive(url, part, about, record)
        except httpx2.InvalidURL as error:
            raise UnreachableError(url, error) from None
        except (_WorthRepeatingError, httpx2.HTTPError) as error:
            attempts = ATTEMPTS if part.exists() and part.stat().st_size > before else attempts - 1
            record = _read_record(about, url)
            if attempts == 0:
                raise UnreachableError(url, error) from None
            time.sleep(2.0 ** (ATTEMPTS - attempts) / 2)
    _check(part, about, record)
    part.replace(target)


def _receive(url: str, part: Path, about: Path, record: _Record | None) -> _Record:
    """Request the missing bytes and append them to `part`; returns the storage's record."""
    begun = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}
    # Without a strong ETag the bytes may have changed, so the download begins anew.
    if record is not None and begun and record.etag.startswith('"'):
        headers |= {"Range": f"bytes={begun}-", "If-Range": record.etag}
    with httpx2.stream(
        "GET", url, headers=headers, timeout=_TIMEOUT, follow_redirects=True
    ) as answer:
        if answer.status_code == 206 and record is not None:
            if not answer.headers.get("Content-Range", "").startswith(f"bytes {begun}-"):
                part.unlink()
                raise _WorthRepeatingError("the storage sent another part than it was asked for")
        elif answer.status_code == 200:
            begun = 0
            part.unlink(missing_ok=True)
            record = _said(url, answer.headers)
            _write_record(about, record)
        elif answer.status_code == 416:
            part.unlink(missing_ok=True)
            raise _WorthRepeatingError("the storage has less than was here already")
        elif answer.status_code in (408, 429) or answer.status_code >= 500:
            raise _WorthRepeatingError(f"status {answer.status_code}")
        else:
            raise UnreachableError(url, f"status {answer.status_code} {answer.reason_phrase}")
        with part.open("ab") as file, _bar(url, begun, record.length) as bar:
            for piece in answer.iter_raw(_PIECE):
                if file.tell() + len(piece) > record.length:
                    raise DownloadError(f"{url}: more came than the {record.length} bytes of it")
                file.write(piece)
                bar(len(piece))
    if part.stat().st_size < record.length:
        raise _WorthRepeatingError("the connection ended early")
    return record


def _said(url: str, headers: httpx2.Headers) -> _Record:
    hashes: dict[str, str] = {}
    for line in headers.get_list("x-goog-hash", split_commas=True):
        kind, _, value = line.strip().partition("=")
        hashes[kind] = value
    if not hashes.keys() & {"crc32c", "md5"}:
        raise DownloadError(
            f"{url}: the storage names no hash of it, so it cannot be checked and is not used; a "
            "file that you trust will do: --checkpoint FILE"
        )
    length = headers.get("x-goog-stored-content-length") or headers.get("Content-Length")
    if length is None or not length.isdecimal():
        raise DownloadError(f"{url}: the storage names no length of it")
    etag = headers.get("ETag", "")
    return _Record(url, etag, int(length), hashes.get("crc32c"), hashes.get("md5"))


def _check(path: Path, about: Path, record: _Record) -> None:
    """Raises DownloadError, and removes the file, if its content is not the published one."""
    md5, crc32c = hashlib.md5(usedforsecurity=False), google_crc32c.Checksum()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            md5.update(piece)
            crc32c.update(piece)
    found = {"md5": _base64(md5.digest()), "crc32c": _base64(crc32c.digest())}
    for kind, expected in (("md5", record.md5), ("crc32c", record.crc32c)):
        if expected is not None and found[kind] != expected:
            path.unlink()
            about.unlink()
            raise DownloadError(
                f"{record.url}: expected {kind} {expected}, found {found[kind]}: what came is not "
                "what was published; it has been removed, and the next run downloads it again"
            )


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def _read_record(about: Path, url: str) -> _Record | None:
    try:
        found = _Record(**json.loads(about.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    # A record of another server is not used, so the download begins anew.
    return found if found.url == url else None


def _write_record(about: Path, record: _Record) -> None:
    new = about.with_name(f"{about.name}.new")
    new.write_text(json.dumps(dataclasses.asdict(record)), encoding="utf-8")
    new.replace(about)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Let only one process at a time download an object; others wait, and then find the file."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note("another process downloads the same file; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _bar(url: str, begun: int, length: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal; the caller reports the bytes of each piece."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        task = bars.add_task(url.rpartition("/")[2], total=length, completed=begun)
        yield lambda amount: bars.update(task, advance=amount)
