"""One TCP connection: uvicorn's, with limits on what happens before and after a request.

In: bytes of a client. Out: requests for the app. A client that sends its request's head too slowly
or without end, or does not take its answer, is shown out; an HTTP error gets a problem document.
"""

import asyncio
import uuid
from collections.abc import Callable, Iterable
from typing import cast

from starlette.types import Scope
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from server.deadlines import WHEN_LOST
from server.middleware import Timings
from server.problems import HeadTooLarge, MalformedRequest, Problem, SlowRequest

# Browsers send a few kilobytes; gateways commonly accept 8 to 64.
MAX_HEAD_BYTES = 64 * 2**10
# How long what still comes is thrown away after a refusal. Closing at once would reset the
# connection, and the client would never see the answer.
LINGER_SECONDS = 2.0


class Joined:
    """A transport that sends the head of an answer and its body in one piece.

    uvicorn writes them one after the other. Each would be a system call and a segment of its own,
    and wake the client twice: a tenth of the work for a small picture. They go at the end of a turn
    of the event loop, so that clients ask again together and their pictures share a batch.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send it, a head together with what follows before the event loop goes on."""
        if self._parts:
            self._parts.append(data)
        elif data.endswith(b"\r\n\r\n"):
            self._parts.append(data)
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Close the connection when everything has been sent."""
        self._flush()
        self._transport.close()

    def write_eof(self) -> None:
        """Close the sending side after what has been written."""
        self._flush()
        self._transport.write_eof()

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        if self._parts:
            parts, self._parts = self._parts, []
            self._transport.write(b"".join(parts))


class Connection(HttpToolsProtocol):
    """Set the attributes in a subclass: uvicorn makes the instances.

    `read_timeout` is in seconds. `refusal` tells why a request is refused at once, if it is.
    """

    read_timeout = 60.0
    refusal: Callable[[Scope], Problem | None]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._rest_timer: asyncio.TimerHandle | None = None
        self._whole = False  # has the latest request come to its end

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        super().connection_made(transport)
        self.transport = Joined(transport, self.loop)  # type: ignore[assignment] # it acts as one
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timers()
        super().connection_lost(exc)
        if self.cycle is not None and not self.cycle.response_complete:
            # What server/deadlines.py wants to be told; cheaper than a task that waits for it.
            tell = self.cycle.scope["state"].get(WHEN_LOST)
            if tell is not None:
                tell()

    def data_received(self, data: bytes) -> None:
        if self._linger_timer is not None:
            return
        began = self._head_timer is not None
        super().data_received(data)
        # What came before the head in the same piece is not of it. Whole heads are told exactly.
        if began and self._head_timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(_too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._whole = False
        self._expect_head()

    def on_headers_complete(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        lines = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if lines > MAX_HEAD_BYTES:
            self._refuse(_too_large())
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._linger_timer is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._whole = True
        if self._rest_timer is not None:
            self._rest_timer.cancel()
            self._rest_timer = None
        if self._linger_timer is None:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        if not self._whole and self._rest_timer is None:
            # Nobody reads the rest of this request, so nobody else looks at the clock.
            self._rest_timer = self.loop.call_later(self.read_timeout, self.transport.close)
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.read_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        # Where the answer has to be the last, what still comes needs more care than this.
        if cycle.keep_alive and not cycle.waiting_for_100_continue:
            problem = self.refusal(cast("Scope", cycle.scope))
            if problem is not None:
                timings: Timings = cycle.scope["state"]["timings"]
                more = [*cycle.default_headers, (b"server-timing", timings.header())]
                self.transport.write(_message(problem, timings.request_id, more))
                # So uvicorn throws away what comes of the body.
                cycle.response_started = cycle.response_complete = True
                cycle.on_response()
                return
        super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:
        self._refuse(MalformedRequest(msg))

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(self.read_timeout, self._too_slow)

    def _too_slow(self) -> None:
        self._head_timer = None
        self._refuse(SlowRequest(f"no whole head of a request came within {self.read_timeout:g} s"))

    def _refuse(self, problem: Problem) -> None:
        self._stop_timers()
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy or self.transport.is_closing():
            # Nothing may be written into the answer to an earlier request.
            self.transport.close()
        else:
            self.transport.write(_message(problem, uuid.uuid4().hex, [(b"connection", b"close")]))
            self.transport.write_eof()
            self._linger_timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _stop_timers(self) -> None:
        for timer in (self._head_timer, self._write_timer, self._linger_timer, self._rest_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._write_timer = self._linger_timer = self._rest_timer = None


def _too_large() -> Problem:
    return HeadTooLarge(f"the head has more than the {MAX_HEAD_BYTES} bytes accepted")


def _message(problem: Problem, request_id: str, more: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The whole answer of HTTP/1.1, with `more` headers."""
    body = problem.body(request_id)
    headers = [
        *problem.headers(),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode()),
        *more,
    ]
    status = f"HTTP/1.1 {int(problem.status)} {problem.status.phrase}\r\n".encode()
    return status + b"".join(b"%s: %s\r\n" % header for header in headers) + b"\r\n" + body
