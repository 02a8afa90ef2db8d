"""API keys: a file of hashed keys decides who may ask; it is read again when it changes.

In: the key that a request carries, as `Authorization: Bearer KEY` (RFC 6750) or `X-API-Key: KEY`.
Out: the name of the key, or `Unauthorized`. The file has a line `NAME SHA256` for each key, the
hash in hexadecimal; `python -m server key NAME` makes one. A key has 256 random bits, so nobody can
find it from its hash by trying; a slower hash would only slow the gateway.
"""

import asyncio
import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from server.problems import Unauthorized

logger = logging.getLogger(__name__)

LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._@-]{0,63})\s+([0-9a-f]{64})")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
# How often the file is checked: a key that was removed stops working within this time.
LOOK_SECONDS = 1.0
# A file that is written in place is empty for a moment, and then has a part of its lines: it is
# read when it has not changed for `SETTLED_SECONDS`, or at the latest after `SETTLE_LOOKS` such
# times. `python -m server key alice > keys.txt` leaves it empty until the program has started, so
# an empty file counts after `EMPTY_SECONDS`.
SETTLED_SECONDS = 0.1
SETTLE_LOOKS = 5
EMPTY_SECONDS = 5.0
MAX_FILE_BYTES = 16 * 2**20
NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # not on Windows, which has no FIFOs among its files
# Paths that work without a key: probes, metrics, the page (it asks for the key), the descriptions.
OPEN_PATHS = frozenset(
    {
        *("/", "/livez", "/readyz", "/healthz", "/metrics"),
        *("/docs", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/openapi.json"),
    }
)


class KeyFileError(ValueError):
    """The file of keys cannot be used; the message says which line is wrong, without its text.

    `text` is all of the file, None if it could not be read.
    """

    def __init__(self, message: str, text: str | None = None) -> None:
        super().__init__(message)
        self.text = text


class KeyFile:
    """The keys of one file as it was `LOOK_SECONDS` and a moment ago, while `watch` runs."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises `KeyFileError`."""
        self.path = path
        self._stamp = self._look()
        self._keys = read(path)
        self._failure: object = None  # what was logged last, since the file was last read
        self._empty_since: float | None = None

    def name_of(self, key: bytes) -> str | None:
        """The name of a key, None if there is no such key. Takes the same time for every key."""
        digest = hashlib.sha256(key).hexdigest().encode()
        found = None
        for name, known in self._keys.items():
            if hmac.compare_digest(digest, known):
                found = name
        return found

    async def watch(self) -> None:
        """Read the file again when it changes, off the event loop: a disk may be slow."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await asyncio.to_thread(self.refresh)

    def refresh(self) -> None:
        """Read the file again if it has changed, when whoever writes it has finished."""
        stamp = self._look()
        if stamp is not None and stamp == self._stamp:
            return
        for _ in range(SETTLE_LOOKS):
            before = stamp
            time.sleep(SETTLED_SECONDS)
            stamp = self._look()
            if stamp == before:
                break
        try:
            self._keys = read(self.path)
        except KeyFileError as error:
            if error.text == "" and self._may_be_unfinished():
                return
            # A typing error must not lock everybody out, and a removed key must not stay. The stamp
            # is not updated, so the next check reads the file again: a change of permissions does
            # not change the stamp.
            if error.text is not None:
                self._stamp = None  # the file that was read last may come back as it was
                known = self._keys.items()
                lines = "\n".join(map(_content, error.text.splitlines()))
                self._keys = {name: one for name, one in known if one.decode() in lines}
            failure = stamp, str(error)
            if failure != self._failure:
                self._failure = failure
                logger.error("%s; %d keys that were read before stay", error, len(self._keys))  # noqa: TRY400 - no trace
        else:
            self._stamp, self._failure, self._empty_since = stamp, None, None
            logger.info("read %d API keys from %s", len(self._keys), self.path)

    def _may_be_unfinished(self) -> bool:
        """Whether the file, which is empty, has been so only for a short time."""
        now = time.monotonic()
        if self._empty_since is None:
            self._empty_since = now
            logger.error(
                "%s is empty; if it stays so for %g s, none of the %d keys that were read before "
                "counts any more",
                self.path,
                EMPTY_SECONDS,
                len(self._keys),
            )
        return now - self._empty_since < EMPTY_SECONDS

    def _look(self) -> tuple[int, int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


class RequireKey:
    """ASGI middleware: lets only requests with a key reach anything but `OPEN_PATHS`."""

    def __init__(
        self, app: ASGIApp, keys: KeyFile, also_open: frozenset[str] = frozenset()
    ) -> None:
        """`also_open` are probes of other protocols."""
        self.app = app
        self.keys = keys
        self._open = OPEN_PATHS | also_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with the key's name in its state, or raise `Unauthorized`."""
        if scope["type"] == "http" and scope["path"] not in self._open:
            key = presented(scope["headers"])
            if key is None:
                raise Unauthorized(
                    "this server needs an API key; send it as 'Authorization: Bearer KEY' or "
                    "'X-API-Key: KEY'"
                )
            name = self.keys.name_of(key)
            if name is None:
                raise Unauthorized("this API key is not known here; it may have been replaced")
            scope["state"]["key"] = name
        await self.app(scope, receive, send)


def presented(headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    """The key that a request carries."""
    for name, value in headers:
        if name == b"x-api-key":
            return value.strip()
        if name == b"authorization":
            scheme, _, key = value.partition(b" ")
            if scheme.lower() == b"bearer":
                return key.strip()
    return None


def read(path: Path) -> dict[str, bytes]:
    """The SHA-256 of each key, in hexadecimal, by its name. Raises `KeyFileError`."""
    try:
        # Without waiting: opening a FIFO would wait for a process that writes into it.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | NO_WAIT)) as file:
            kind = os.fstat(file.fileno())
            if not stat.S_ISREG(kind.st_mode):
                raise KeyFileError(f"the file of keys {path} is no file, but {_kind(kind.st_mode)}")
            if kind.st_size > MAX_FILE_BYTES:
                raise KeyFileError(
                    f"the file of keys {path} has {kind.st_size} bytes, "
                    f"at most {MAX_FILE_BYTES} are read"
                )
            data = file.read()
    except IsADirectoryError:
        raise KeyFileError(f"the file of keys {path} is no file, but a folder") from None
    except OSError as error:
        raise KeyFileError(f"the file of keys {path} cannot be read: {error}") from error
    text = data.decode("utf-8", "replace")
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        content = _content(line)
        if not content:
            continue
        found = LINE.fullmatch(content)
        if found is None:
            raise KeyFileError(
                f"{path} line {number} is not NAME SHA256 with 64 lower-case hexadecimal digits; "
                "`python -m server key NAME` makes such a line",
                text,
            )
        if found[1] in keys:
            raise KeyFileError(f"{path} line {number} names {found[1]!r} a second time", text)
        keys[found[1]] = found[2].encode()
    if not keys:
        raise KeyFileError(f"{path} holds no key; `python -m server key NAME` makes one", text)
    return keys


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFIFO: "a FIFO (a pipe, such as <(command))",
        stat.S_IFCHR: "a device",
        stat.S_IFSOCK: "a socket",
        stat.S_IFDIR: "a folder",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


def _content(line: str) -> str:
    """A line without its comment."""
    return line.partition("#")[0].strip()


def main(arguments: Sequence[str]) -> int:
    """`python -m server key NAME`: print a new key to standard error, its line to standard output.

    So `python -m server key alice >> keys.txt` stores the hash, and shows the key this once.
    """
    if len(arguments) != 1 or not NAME.fullmatch(arguments[0]):
        print(
            "usage: python -m server key NAME >> keys.txt\n\n"
            "Makes an API key: the key goes to the terminal, the line NAME SHA256 for the file of\n"
            "--keys-file to standard output. NAME: up to 64 letters, digits and ._@-",
            file=sys.stderr,
        )
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    key = secrets.token_urlsafe(32)
    print(f"The API key of {arguments[0]}, shown this once: {key}", file=sys.stderr)
    print(f"{arguments[0]} {hashlib.sha256(key.encode()).hexdigest()}")
    return 0
