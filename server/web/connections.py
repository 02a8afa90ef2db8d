"""One TCP connection: what happens before a request, beside it and after it.

In: bytes of a client. Out: one request after the other for uvicorn's own protocol, each head whole.
A client that sends a head too slowly or without end, or does not take its answer, is disconnected;
input that is not HTTP gets a problem document. Of uvicorn only those methods are used that every
asyncio protocol has (server/process/uvicorn_parts.py).
"""

import asyncio
import uuid
from collections.abc import Callable, Iterable

from starlette.types import Scope

from server.observability import telemetry
from server.problems import MalformedRequest, Problem, SlowRequest, TooBusy
from server.web.connection_limits import ConnectionLimits
from server.web.connection_timer import ConnectionTimer
from server.web.framing import Framing
from server.web.transport import ClientTransport

# The most of an unwanted body that is read and discarded to keep the connection.
SMALL_BODY = 2**20
# How long input is still read and thrown away after the last answer (lingering close). Closing at
# once would reset the connection, and the client would never see the answer.
LINGER_SECONDS = 2.0
# Longer than load balancers keep an idle connection (60 s is common), so that it is never closed
# while one of them sends a request on it.
KEEP_ALIVE_SECONDS = 75.0
# The first and the longest pause between checks whether a half-closed connection is wholly closed.
FIRST_LOOK_SECONDS, LAST_LOOK_SECONDS = 0.01, 0.1
STATE = "connection"  # under this name the state of a request has its `ClientConnection`


class ClientConnection(asyncio.Protocol):
    """Stands between asyncio and `server`, which parses a request and lets the app answer it.

    `framing` knows the head of the request under way, `request_id` is its id once it has one.
    `lost` is called when the client goes away during a request. `problem` says why a request was
    cut off, unless its client did that.
    """

    def __init__(
        self,
        make_server: Callable[[dict[str, object]], asyncio.Protocol],
        app_state: dict[str, object],
        limits: ConnectionLimits,
        read_timeout: float,
        *,
        log_refusals: bool,
    ) -> None:
        """`make_server` gets the first state of each request: `app_state`, and this object.

        `read_timeout` is in seconds: for a head to come, and for an answer to be taken by the
        client. With `log_refusals` an incomplete request gets a line of log, too.
        """
        self.request_id = ""
        self.lost: Callable[[], None] | None = None
        self.problem: Problem | None = None
        self._state = {**app_state, STATE: self}
        self._server: asyncio.Protocol | None = make_server(self._state)
        self._limits = limits
        self._read_timeout = read_timeout
        self._log_refusals = log_refusals
        self._loop = asyncio.get_running_loop()
        self.framing = Framing()
        self._ahead, self._ahead_at = b"", 0  # bytes that came behind the request under way
        self._first = True  # no request has come yet
        self._busy = False  # a request is under way
        self._requests = 0  # that have begun
        self._over = False  # nothing more is taken from this client
        self._half_closed = False  # by the client, which may still read
        self._timer = ConnectionTimer(self._loop, self._waited_too_long)
        self._write_timer: asyncio.TimerHandle | None = None

    # What the app calls.

    def keeps(self, *, refused: bool) -> bool:
        """Whether the connection can stay open after an answer that is sent now.

        The rest of the body is read and thrown away. After a refusal the rest must be known to be
        small. The connection cannot stay open if the client asked whether to send the body
        (`Expect`): the client may now send it or not, and the server could not tell which. Nor can
        it stay open after as many requests as a connection may bring.
        """
        if self._requests == self._limits.requests > 0:
            return False
        framing = self.framing
        if framing.whole:
            return True
        if framing.asks:
            return False
        return not refused or (framing.length is not None and framing.length <= SMALL_BODY)

    def headers(self, *, close: bool) -> list[tuple[bytes, bytes]]:
        """The headers of an answer that are about the connection."""
        if close:
            return [(b"connection", b"close")]
        if self.framing.old and self.framing.keep_alive:
            return [(b"connection", b"keep-alive")]  # HTTP/1.0 expects the contrary
        return []

    def unsent(self) -> int:
        """How many bytes the client has not taken."""
        return self._way.get_write_buffer_size()

    def answered(self) -> None:
        """The app has finished the request."""
        self._busy = False
        self.lost = None
        if self._over:
            return
        self._limits.waits(self)
        if not self.framing.whole:
            # The app no longer reads the rest of this request, so the time limit is kept here.
            self._timer.set(self._read_timeout)
            return
        self._way.answering = False
        if self._ahead or self._half_closed:
            # After the server has finished the request, too.
            self._loop.call_soon(self._after_answer)
        else:
            self._timer.set(KEEP_ALIVE_SECONDS)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # TCP
        """Begin to wait for a request."""
        self._way = ClientTransport(transport, self._loop, self._read_timeout, self._server_closes)
        if self._server is not None:
            self._server.connection_made(self._way)
        if self._limits.opens(self):
            self._timer.set(self._read_timeout)
        else:
            # Not by `_refuse`, which would keep open the connections that there are too many of.
            most = self._limits.most
            self._end_with(TooBusy(f"{most} connections are open, which is the limit"))
            self._way.finish()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the server and the app know."""
        self._timer.close()
        if self._write_timer is not None:
            self._write_timer.cancel()
        self._over = True
        self._limits.closes(self)
        self.framing.close()
        self._leave_server(exc)
        self._state.clear()  # the state holds this object

    def data_received(self, data: bytes) -> None:
        """Hand on what belongs to the request under way, or begin the next."""
        if not self._over:
            self._go_on(self._ahead[self._ahead_at :] + data if self._ahead else data)

    def eof_received(self) -> bool:
        """Answer whole requests: a client may close its sending side after its last request."""
        self._half_closed = True
        if not self._way.closes_by_half:
            self._way.finish()  # what was written is sent; then asyncio closes the connection
            return False
        if self._over or not (self._busy or self.framing.in_head):
            self._way.finish()  # the last answer may wait for the end of this turn of the loop
            return False
        if self.framing.whole:
            # The client may have closed both sides. Only sending something to the client can show
            # that.
            self._way.begin_early()
            self._look_for_reset(FIRST_LOOK_SECONDS)
            return True
        what = "head" if self.framing.in_head else "body"
        self._refuse(MalformedRequest(f"the connection ended within the {what} of a request"))
        return False

    def pause_writing(self) -> None:
        """The client does not take what was written."""
        if self._server is not None:
            self._server.pause_writing()
        if self._write_timer is None:
            self._write_timer = self._loop.call_later(self._read_timeout, self._way.abort)

    def resume_writing(self) -> None:
        """The client takes data again."""
        if self._server is not None:
            self._server.resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    # What the limits on all connections call.

    def make_room(self) -> None:
        """End, since this connection has waited for its request longer than any other."""
        if self.framing.in_head:
            self._refuse(SlowRequest("others waited for the place of this unfinished head"))
        else:
            self._over = True
            self._way.finish()

    def _go_on(self, data: bytes, at: int = 0) -> None:
        """Handle `data` from `at` on, until the rest has to wait for the request under way."""
        framing = self.framing
        self._ahead = b""
        while at < len(data) and not self._over:
            if framing.whole:
                if data[at] in b"\r\n":  # ignored before a request (RFC 9112, 2.2)
                    at += 1
                    continue
                if self._busy:
                    self._ahead, self._ahead_at = data, at
                    self._way.hold("connection")
                    return
            begun = not (framing.whole or framing.in_head)
            try:
                piece, at = framing.take(data, at)
            except Problem as problem:
                self._refuse(problem)
                return
            if begun:
                self._serve(piece)
                if framing.whole and not self._busy:  # it was answered before
                    self._way.answering = False
                    self._timer.set(KEEP_ALIVE_SECONDS)
            elif piece:
                self._begin()
                self._serve(piece)
            else:
                self._wait_for_head()

    def _begin(self) -> None:
        self._first = False
        self._busy = True
        self._requests += 1
        self._way.answering = False
        self._timer.stop()
        self._limits.begins(self)

    def _serve(self, piece: bytes) -> None:
        if self._server is not None:
            self._server.data_received(piece)

    def _wait_for_head(self) -> None:
        if self._limits.holds(self, self.framing.head_bytes) and not self._first:
            self._timer.set(self._read_timeout)  # from its first byte on

    def _after_answer(self) -> None:
        if self._over:
            return
        self._way.let_go("connection")
        self._go_on(self._ahead, self._ahead_at)
        if self._busy or self._over:
            return
        if not self._half_closed:
            self._timer.set(self._read_timeout if self.framing.in_head else KEEP_ALIVE_SECONDS)
        elif self.framing.in_head:
            self._refuse(MalformedRequest("the connection ended within the head of a request"))
        else:
            self._over = True
            self._way.finish()

    def _server_closes(self) -> None:
        if self._over:
            return
        self._over = True
        if self._half_closed or (self.framing.whole and not self._ahead):
            self._way.finish()
        else:
            self._linger()

    def _linger(self) -> None:
        self._way.end()
        self._timer.set(LINGER_SECONDS)

    def _refuse(self, problem: Problem) -> None:
        """Take nothing more from this client, and tell it why unless it already has an answer."""
        answering = self._way.answering
        self._end_with(problem)
        if answering or self._half_closed:
            self._way.finish()
        else:
            self._linger()

    def _end_with(self, problem: Problem) -> None:
        running, self._busy = self._busy, False
        self._over = True
        self._limits.begins(self)
        self._way.cut()
        # If the client went away within its own request, that is not a problem to report.
        self.problem = None if self._half_closed else problem
        self._leave_server(None)
        if not self._way.answering:
            request_id = self.request_id if running else uuid.uuid4().hex
            self._way.send_last(_message(problem, request_id))
            if not running:
                telemetry.no_request(problem, request_id, log=self._log_refusals)

    def _leave_server(self, error: Exception | None) -> None:
        """Tell the server and the app that the connection is lost."""
        server, self._server = self._server, None
        if server is not None:
            server.connection_lost(error)
        # For `while_connected`; a callback is cheaper than a task that waits.
        lost, self.lost = self.lost, None
        if lost is not None:
            lost()

    def _waited_too_long(self) -> None:
        """The client has not taken its next action in time."""
        if not self._over and (self._first or self.framing.in_head):
            seconds = self._read_timeout
            self._refuse(SlowRequest(f"no whole head of a request came within {seconds:g} s"))
        else:
            self._over = True
            self._way.finish()

    def _look_for_reset(self, pause: float) -> None:
        """Notice that a client which closed its sending side has closed the other, too."""
        if self._over or not self._busy:
            return
        if self._way.is_reset():
            self._way.abort()
        else:
            longer = min(2 * pause, LAST_LOOK_SECONDS)
            self._loop.call_later(pause, self._look_for_reset, longer)


def connection_of(scope: Scope) -> ClientConnection:
    """The connection that a request came on."""
    connection: ClientConnection = scope["state"][STATE]
    return connection


def _message(problem: Problem, request_id: str) -> bytes:
    """The whole last answer of HTTP/1.1 on a connection."""
    body = problem.body(request_id)
    headers: Iterable[tuple[bytes, bytes]] = (
        *problem.headers(),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode()),
        (b"connection", b"close"),
    )
    status = f"HTTP/1.1 {int(problem.status)} {problem.status.phrase}\r\n".encode()
    return status + b"".join(b"%s: %s\r\n" % header for header in headers) + b"\r\n" + body
