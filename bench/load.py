"""HTTP load as cheap as Python can make it, so that the cores are left to what is measured.

In: the address of a server, ready-made requests, how many to keep under way. Out: how long each
answer took and its status. A closed loop over keep-alive connections: each sends its next request
when its answer has come.
"""

import asyncio
import itertools
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

PATIENCE_SECONDS = 30.0  # for the last answers
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass
class Answers:
    """What came back: seconds of each answer with status 200, and how many had another."""

    seconds: list[float] = field(default_factory=list)
    failed: int = 0


class _Client(asyncio.Protocol):
    """One connection with one request under way."""

    def __init__(self, requests: Iterator[bytes], answers: Answers, slots: list[bool]) -> None:
        self._requests = requests
        self._answers = answers
        self._open = slots  # emptied when no more requests are to be sent
        self._buffer = b""
        self._whole = 0  # bytes of the answer, head included, once its head is here
        self._sent = 0.0
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as asyncio says
        self._transport = transport
        self._send()

    def _send(self) -> None:
        if not self._open:
            self._transport.close()
            return
        self._buffer, self._whole = b"", 0
        self._sent = time.perf_counter()
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if not self._whole:
            end = self._buffer.find(b"\r\n\r\n")
            length = LENGTH.search(self._buffer, 0, end) if end >= 0 else None
            if length is None:
                return
            self._whole = end + 4 + int(length[1])
        if len(self._buffer) >= self._whole:
            if self._buffer.startswith(b"HTTP/1.1 200"):
                self._answers.seconds.append(time.perf_counter() - self._sent)
            else:
                self._answers.failed += 1
            self._send()

    def connection_lost(self, _error: Exception | None) -> None:
        self._answers.failed += bool(self._open)
        if not self.ended.done():
            self.ended.set_result(None)


class Load:
    """Keeps `concurrency` requests under way inside `async with`; `answers` grows meanwhile."""

    def __init__(self, url: str, requests: list[bytes], concurrency: int) -> None:
        self.answers = Answers()
        parts = urlsplit(url)
        self._address = parts.hostname or "127.0.0.1", parts.port or 80
        self._requests = itertools.cycle(requests)
        self._open = [True]
        self._concurrency = concurrency
        self._clients: list[_Client] = []

    async def __aenter__(self) -> "Load":
        loop = asyncio.get_running_loop()
        for _ in range(self._concurrency):
            _, client = await loop.create_connection(
                lambda: _Client(self._requests, self.answers, self._open),
                *self._address,
            )
            self._clients.append(client)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._open.clear()
        await asyncio.wait([client.ended for client in self._clients], timeout=PATIENCE_SECONDS)

    def begin(self) -> None:
        """Forget what came so far, as the warm-up."""
        self.answers.seconds.clear()
        self.answers.failed = 0


def single(path: str, picture: bytes) -> bytes:
    """A request with one picture as its body."""
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: image/jpeg\r\n"
    return f"{head}Content-Length: {len(picture)}\r\n\r\n".encode() + picture


def form(path: str, pictures: list[bytes]) -> bytes:
    """A request with many pictures as fields of a form."""
    parts = b"".join(
        b'--bench\r\nContent-Disposition: form-data; name="image"; filename="%d.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n%b\r\n" % (number, picture)
        for number, picture in enumerate(pictures)
    )
    body = parts + b"--bench--\r\n"
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\n"
    kind = "Content-Type: multipart/form-data; boundary=bench\r\n"
    return f"{head}{kind}Content-Length: {len(body)}\r\n\r\n".encode() + body
