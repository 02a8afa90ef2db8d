"""HTTP/1.1 over kept connections, with as little CPU as Python allows.

In: the address of a server, requests as ready-made bytes. Out: responses. This client runs on the
machine that is measured, so the servers lack the CPU time that it takes: a request costs a tenth of
the CPU time that common HTTP clients take. Each connection has one request under way at a time, and
no request is ever repeated.
"""

import asyncio
import json
import os
import time
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import httptools

from loadtest.load.target import PATIENCE, BusyError, TargetError

# A connection that has been idle for longer is not used again: a server may close it at any moment.
IDLE_SECONDS = 2.0
FAILURES = (OSError, EOFError, httptools.HttpParserError)


class Response(NamedTuple):
    """What a server answered."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: bytes) -> str:
        """The value of a field, whose name is given in lower case; "" if there is none."""
        for each, value in self.headers:
            if each.lower() == name:
                return value.decode("latin-1")
        return ""


class Connection(asyncio.Protocol):
    """A connection with one request under way at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Response] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []

    @property
    def usable(self) -> bool:
        """Whether another request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, request: bytes) -> asyncio.Future[Response]:
        """Send a request; the future fails with one of FAILURES if no whole answer comes."""
        self._waiting = asyncio.get_running_loop().create_future()
        if self._transport is None or self._transport.is_closing():
            self._waiting.set_exception(ConnectionResetError("the connection is closed"))
        else:
            self._transport.write(request)
        return self._waiting

    def close(self) -> None:
        """Close it."""
        if self._transport is not None:
            self._transport.close()

    def give_up(self) -> None:
        """Stop waiting for the answer."""
        self._fail(TimeoutError(f"no answer within {PATIENCE:.0f} s"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(error)

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or EOFError("the connection was closed before the answer was whole"))

    # The parser calls the following methods.

    def on_message_begin(self) -> None:
        self._headers, self._body = [], []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        response = Response(self._parser.get_status_code(), self._headers, body)
        if not self._parser.should_keep_alive():
            self.close()
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(response)

    def _fail(self, error: Exception) -> None:
        self.close()
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)


class Http:
    """Kept connections to one server."""

    def __init__(self, url: str, address: str | None = None) -> None:
        """`address` is the local address of the connections; None: the system chooses it."""
        wanted = f"{url}: expected an address such as http://127.0.0.1:8000"
        try:
            parts = urlsplit(url)
            self._port = parts.port or 80
        except ValueError as error:  # no number, or none of a port
            raise TargetError(f"{wanted}; {error}") from None
        if parts.scheme != "http" or not parts.hostname:
            raise TargetError(wanted)
        self._host, self._netloc = parts.hostname, parts.netloc
        self._local = (address, 0) if address else None
        # The gateway's own client reads the same variable.
        self._key = os.environ.get("MIXER_CLIENT_KEY", "")
        self._idle: list[tuple[float, Connection]] = []  # since when

    def request(
        self, path: str, body: bytes | None = None, kind: str = "", headers: str = ""
    ) -> bytes:
        """The bytes of a GET, or of a POST of `body`; `headers` are lines that end in CRLF."""
        head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: {self._netloc}\r\n"
        if self._key:
            head += f"X-API-Key: {self._key}\r\n"
        if body is not None:
            head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        return f"{head}{headers}\r\n".encode() + (body or b"")

    async def exchange(self, request: bytes) -> Response:
        """The answer to a request, waited for PATIENCE at most; raises one of FAILURES."""
        connection = self._take()
        if connection is None:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(
                Connection, self._host, self._port, local_addr=self._local
            )
        # A timer of the event loop: asyncio.timeout costs as much as all the rest of a request.
        timer = asyncio.get_running_loop().call_later(PATIENCE, connection.give_up)
        try:
            response = await connection.send(request)
        except BaseException:
            connection.close()
            raise
        finally:
            timer.cancel()
        if connection.usable:
            self._idle.append((time.monotonic(), connection))
        return response

    def _take(self) -> Connection | None:
        if self._idle and self._idle[-1][0] < time.monotonic() - IDLE_SECONDS:
            self.close()
        while self._idle:
            _, connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def json(self, request: bytes) -> Any:  # noqa: ANN401 - JSON
        """The JSON document of the answer; raises TargetError."""
        line = request.partition(b"\r\n")[0].decode()
        try:
            response = await self.exchange(request)
            if response.status == 200:
                return json.loads(response.body)
        except (*FAILURES, ValueError) as error:  # ValueError: a name of no host, or no JSON
            where = f"http://{self._netloc}"
            raise TargetError(f"{where}: {line}: {error or type(error).__name__}") from error
        kind = BusyError if response.status == 429 else TargetError
        said = response.body[:300].decode("utf-8", "replace")
        raise kind(f"{line}: status {response.status}: {said}")

    async def about(self, model: str) -> dict[str, Any]:
        """What the gateway says of a model that it serves; raises TargetError for any other."""
        found: dict[str, Any] = await self.json(self.request(f"/models/{model}"))
        if found["state"] == "unavailable":
            raise TargetError(f"{model} is not served: {found['reason']}")
        return found

    def close(self) -> None:
        """Close the idle connections."""
        for _, connection in self._idle:
            connection.close()
        self._idle.clear()
