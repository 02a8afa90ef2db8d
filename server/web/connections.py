"""One TCP connection: uvicorn's, with limits on what happens before and after a request.

In: bytes of a client. Out: requests for the app. A client that sends its request's head too slowly
or without end, or does not take its answer, is shown out; an HTTP error gets a problem document.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterable
from typing import cast
from urllib.parse import quote

import httptools
from starlette.types import Scope
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from server.observability import telemetry
from server.observability.timings import Timings
from server.problems import HeadTooLarge, MalformedRequest, Problem, SlowRequest
from server.web.deadlines import WHEN_LOST

logger = logging.getLogger(__name__)

# Browsers send a few kilobytes; gateways commonly accept 8 to 64.
MAX_HEAD_BYTES = 64 * 2**10
# What goes with a wish for another protocol (RFC 7540, 3.2, and RFC 6455, 4.1).
UPGRADING = {b"upgrade", b"http2-settings"}
KEPT_TOKENS = {b"close", b"keep-alive"}  # of `Connection`
# How long what still comes is thrown away after a refusal. Closing at once would reset the
# connection, and the client would never see the answer.
LINGER_SECONDS = 2.0


class Joined:
    """A transport that sends the head of an answer and its body in one piece.

    uvicorn writes them one after the other. Each would be a system call and a segment of its own,
    and wake the client twice: a tenth of the work for a small image. They go at the end of a turn
    of the event loop, so that clients ask again together and their images share a batch.

    Closed, it waits at most `patience` seconds for a client that does not take what was written.
    """

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, patience: float
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._patience = patience
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
        if not self._transport.is_closing() and self._transport.get_write_buffer_size():
            self._loop.call_later(self._patience, self._transport.abort)
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
            if not self._transport.is_closing():  # else nobody is there to read it
                self._transport.write(b"".join(parts))


class Connection(HttpToolsProtocol):
    """Set the attributes in a subclass: uvicorn makes the instances.

    `read_timeout` is in seconds. `refusal` tells why a request is refused at once, if it is. With
    `log_refusals` what is no whole request gets its line of log.
    """

    read_timeout = 60.0
    log_refusals = False
    refusal: Callable[[Scope], Problem | None]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._in_head = False
        self._whole = True  # has the latest request come to its end
        self._upgrading = False  # between a head that asks for it and its second reading
        self._refused = False  # nothing more is taken from this client
        self._bodiless_bytes = 0  # that came since the last byte of a body or the end of a head
        self._running: RequestResponseCycle | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._rest_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        super().connection_made(transport)
        joined = Joined(transport, self.loop, self.read_timeout)
        self.transport = joined  # type: ignore[assignment] # it acts as one
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timers()
        if self._write_timer is not None:
            self._write_timer.cancel()
        super().connection_lost(exc)
        # uvicorn tells the request that came last; others may be waiting before it.
        running = self._running
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()
            # For `while_connected`; a callback is cheaper than a task that waits.
            tell = running.scope["state"].get(WHEN_LOST)
            if tell is not None:
                tell()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._bodiless_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            # What a callback raised: that the target is none, or a fault of our own.
            cause = error.__context__
            if cause and not isinstance(cause, (httptools.HttpParserError, UnicodeError)):
                logger.exception("reading a request failed", exc_info=cause)
            self._refuse(MalformedRequest("this is not a request of HTTP/1.1"))
        if self._refused:
            return
        if self._bodiless_bytes > MAX_HEAD_BYTES:
            # A head, or what may follow a body: trailers and the extensions of chunks.
            self._refuse(_too_large())
        elif (
            self.timeout_keep_alive_task is None
            and self._whole
            and not self._in_head
            and (self.cycle is None or self.cycle.response_complete)
        ):
            # uvicorn stops the clock at every byte, and starts it only when it has answered. These
            # were the rest of a request that has been answered before, or an empty line.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _feed(self, data: bytes) -> None:
        """Parse it; an `Upgrade` to what is not spoken here is ignored (RFC 9110, 7.8).

        Java's client asks for h2c with its first request, image and all. The parser takes what
        follows such a head for the other protocol, so another is given the head without the wish.
        """
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade() + data[upgrade.args[0] :]
                self._upgrading = False
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn
            else:
                return

    def _without_upgrade(self) -> bytes:
        if self._refused:
            return b""
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                tokens = (token.strip().lower() for token in value.split(b","))
                lines += [b"connection: " + token for token in tokens if token in KEPT_TOKENS]
            elif name not in UPGRADING:
                lines.append(name + b": " + value)
        return b"\r\n".join(lines) + b"\r\n\r\n"

    # What is called by the parser: it goes on to the end of the piece that it was given.

    def on_message_begin(self) -> None:
        if self._refused:
            return
        super().on_message_begin()
        self._whole = False
        self._expect_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else a trailer (RFC 9112, 7.1.2), which may be thrown away
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._refused:
            return
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        lines = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if lines > MAX_HEAD_BYTES:
            self._refuse(_too_large())
            return
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                self._refuse(MalformedRequest("CONNECT is not served here, this is no proxy"))
            self._upgrading = True
            return
        if not self.url.startswith(b"/") and httptools.parse_url(self.url).path is None:
            self._refuse(MalformedRequest("the target of the request has no path"))
            return
        self._bodiless_bytes = 0
        super().on_headers_complete()  # raises where the target is none
        self._in_head = False

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            self._bodiless_bytes = 0
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._refused or self._upgrading:
            return
        self._whole = True
        self._bodiless_bytes = 0
        if self._rest_timer is not None:
            self._rest_timer.cancel()
            self._rest_timer = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if not self._whole and self._rest_timer is None and not self.transport.is_closing():
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
        self._running = cycle
        # Where the answer has to be the last, or the client does not take those before, what still
        # comes needs more care than this.
        if cycle.keep_alive and not cycle.waiting_for_100_continue and not self.flow.write_paused:
            problem = self._refusal(cast("Scope", cycle.scope))
            if problem is not None:
                timings: Timings = cycle.scope["state"]["timings"]
                more = [*cycle.default_headers, (b"server-timing", timings.header())]
                self.transport.write(_message(problem, timings.request_id, more))
                # So uvicorn throws away what comes of the body.
                cycle.response_started = cycle.response_complete = True
                if self.pipeline:  # the next of them from here would be one call deeper
                    self.loop.call_soon(cycle.on_response)
                else:
                    cycle.on_response()
                return
        super()._start_asgi_task(cycle, app)

    def _refusal(self, scope: Scope) -> Problem | None:
        try:
            return self.refusal(scope)
        except Exception:
            # The app has an answer to everything; the parser, which would get this, has none.
            logger.exception("%s %s: refusing failed", scope["method"], quote(scope["path"]))
            return None

    def _expect_head(self) -> None:
        self._in_head = True
        if self._head_timer is None:
            self._bodiless_bytes = 0
            self._head_timer = self.loop.call_later(self.read_timeout, self._too_slow)

    def _too_slow(self) -> None:
        self._head_timer = None
        self._refuse(SlowRequest(f"no whole head of a request came within {self.read_timeout:g} s"))

    def _refuse(self, problem: Problem) -> None:
        if self._refused:
            return
        self._refused = True
        self._stop_timers()
        busy = self.cycle is not None and not self.cycle.response_complete
        answered = not self._in_head and not self._whole  # and its rest is what is refused
        if busy or answered or self.transport.is_closing():
            # Nothing may be written into the answer to an earlier request.
            self.transport.close()
        else:
            request_id = uuid.uuid4().hex
            self.transport.write(_message(problem, request_id, [(b"connection", b"close")]))
            self.transport.write_eof()
            telemetry.no_request(problem, request_id, log=self.log_refusals)
            self._linger_timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _stop_timers(self) -> None:
        """All but that of a client that does not take its answer."""
        for timer in (self._head_timer, self._linger_timer, self._rest_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._linger_timer = self._rest_timer = None


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
