"""HTTP load as cheap as Python can make it, so that the cores are left to what is measured.

In: the address of a server, ready-made requests, how many to keep under way or to send per second.
Out: how long each answer took and its status. In a closed loop (`Load`, `peak`) each connection
sends its next request when its answer has come; in an open one (`at_rate`) the clock sends them.
"""

import asyncio
import itertools
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np

PATIENCE_SECONDS = 30.0  # for the last answers
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
CLOSE = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)


class Connection(asyncio.Protocol):
    """A keep-alive connection with one request under way at a time."""

    def __init__(self) -> None:
        self._answered: Callable[[int], None] | None = None
        self._buffer = b""
        self._whole = 0  # bytes of the answer, head included, once its head is here
        self.ended = asyncio.get_running_loop().create_future()

    @property
    def usable(self) -> bool:
        """Whether another request can be sent."""
        return not self._transport.is_closing()

    def send(self, request: bytes, answered: Callable[[int], None]) -> None:
        """Send it; `answered` gets the status of the answer, 0 if the connection breaks before."""
        self._buffer, self._whole, self._answered = b"", 0, answered
        self._transport.write(request)

    def close(self) -> None:
        """Close it."""
        self._transport.close()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as asyncio says
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if not self._whole:
            end = self._buffer.find(b"\r\n\r\n")
            length = LENGTH.search(self._buffer, 0, end) if end >= 0 else None
            if length is None:
                return
            self._whole = end + 4 + int(length[1])
        if len(self._buffer) >= self._whole:
            if CLOSE.search(self._buffer, 0, self._whole):
                self._transport.close()
            self._end(int(self._buffer[9:12]))

    def connection_lost(self, _error: Exception | None) -> None:
        self._end(0)
        if not self.ended.done():
            self.ended.set_result(None)

    def _end(self, status: int) -> None:
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(status)


@dataclass
class Answers:
    """What came back: seconds of each answer with status 200, and how many had another."""

    seconds: list[float] = field(default_factory=list)
    failed: int = 0


class Load:
    """Keeps `concurrency` requests under way inside `async with`; `answers` grows meanwhile."""

    def __init__(self, url: str, requests: list[bytes], concurrency: int) -> None:
        self.answers = Answers()
        self._address = _address(url)
        self._requests = itertools.cycle(requests)
        self._open = True
        self._concurrency = concurrency
        self._connections: list[Connection] = []

    async def __aenter__(self) -> "Load":
        loop = asyncio.get_running_loop()
        for _ in range(self._concurrency):
            _, connection = await loop.create_connection(Connection, *self._address)
            self._connections.append(connection)
            self._ask(connection)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._open = False
        ended = [connection.ended for connection in self._connections]
        await asyncio.wait(ended, timeout=PATIENCE_SECONDS)

    def begin(self) -> None:
        """Forget what came so far, as the warm-up."""
        self.answers.seconds.clear()
        self.answers.failed = 0

    def _ask(self, connection: Connection) -> None:
        sent = time.perf_counter()

        def answered(status: int) -> None:
            if status == 200:
                self.answers.seconds.append(time.perf_counter() - sent)
            else:
                self.answers.failed += 1
            if not self._open:
                connection.close()
            elif connection.usable:
                self._ask(connection)

        connection.send(next(self._requests), answered)


class Clients:
    """As many connections to one gateway as there are requests under way, all with one image."""

    def __init__(self, url: str, picture: bytes, deadline: float) -> None:
        self._address = _address(url)
        self._request = single("/classify", picture, f"X-Request-Timeout: {deadline}\r\n")
        self._idle: list[Connection] = []
        self.answers: list[tuple[int, float]] = []  # status and seconds

    async def ask(self) -> None:
        """One request, on an idle connection or a new one; status 0 is a broken connection."""
        began = time.perf_counter()
        loop = asyncio.get_running_loop()
        connection = None
        while self._idle and connection is None:
            idle = self._idle.pop()
            connection = idle if idle.usable else None  # else the gateway has closed it
        if connection is None:
            try:
                _, connection = await loop.create_connection(Connection, *self._address)
            except OSError:
                self.answers.append((0, time.perf_counter() - began))
                return
        future: asyncio.Future[int] = loop.create_future()

        def answered(status: int) -> None:
            self.answers.append((status, time.perf_counter() - began))
            if not future.done():  # else who asked has been cancelled
                future.set_result(status)

        connection.send(self._request, answered)
        await future
        if connection.usable:
            self._idle.append(connection)

    def close(self) -> None:
        """Close the connections that wait for a request."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()


async def peak(clients: Clients, seconds: float, concurrency: int) -> float:
    """Good answers per second with `concurrency` requests always under way."""
    end = time.perf_counter() + seconds

    async def loop() -> None:
        while time.perf_counter() < end:
            await clients.ask()

    await asyncio.gather(*(loop() for _ in range(concurrency)))
    return sum(status == 200 for status, _ in clients.answers) / seconds


async def at_rate(clients: Clients, rate: float, seconds: float) -> float:
    """Requests at fixed times, whether or not earlier ones have been answered.

    Gives the most seconds by which this program itself was late with one.
    """
    began = time.perf_counter()
    late = 0.0
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            pause = began + number / rate - time.perf_counter()
            late = max(late, -pause)
            if pause > 0:
                await asyncio.sleep(pause)
            group.create_task(clients.ask())
    return late


def percentiles(seconds: list[float]) -> str:
    """Median, 99th percentile and maximum, in milliseconds."""
    if not seconds:
        return "none"
    p50, p99, most = 1000 * np.percentile(seconds, (50, 99, 100))
    return f"median {p50:.1f} ms, p99 {p99:.1f} ms, most {most:.1f} ms"


def single(path: str, picture: bytes, headers: str = "") -> bytes:
    """A request with one image as its body; `headers` are lines that end in CRLF."""
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: image/jpeg\r\n{headers}"
    return f"{head}Content-Length: {len(picture)}\r\n\r\n".encode() + picture


def form(path: str, sample_images: list[bytes]) -> bytes:
    """A request with many images as fields of a form."""
    parts = b"".join(
        b'--bench\r\nContent-Disposition: form-data; name="image"; filename="%d.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n%b\r\n" % (number, picture)
        for number, picture in enumerate(sample_images)
    )
    body = parts + b"--bench--\r\n"
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\n"
    kind = "Content-Type: multipart/form-data; boundary=bench\r\n"
    return f"{head}{kind}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or 80
