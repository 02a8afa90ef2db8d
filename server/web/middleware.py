"""What every response has in common: an id, its timings, and problems for errors.

In: any ASGI request. Out: the app's response with `X-Request-ID` and `Server-Timing` (W3C Server
Timing), or, when the app raised, the problem document that tells the client why.
"""

import json
import logging
import random
import re
import time
from collections.abc import Sequence
from urllib.parse import quote

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.observability import logs
from server.observability.timings import Timings
from server.problems import InternalError, Problem
from server.web.connections import connection_of
from server.web.dialects import of_path
from server.web.dialects.dialect import Dialect
from server.web.state import state_of

logger = logging.getLogger(__name__)

SANE_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:+/=@-]{0,127}")


class Envelope:
    """ASGI middleware around the whole app. Puts `Timings` into the request's state."""

    def __init__(self, app: ASGIApp, dialects: Sequence[Dialect] = ()) -> None:
        """In the paths of `dialects` an error has their form."""
        self.app = app
        self._dialects = dialects

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = request_id_of(scope)
        timings = Timings(time.perf_counter(), request_id.decode())
        logs.request_id.set(timings.request_id)
        scope["state"]["timings"] = timings
        started = False
        state = state_of(scope["app"])
        connection = connection_of(scope)
        connection.request_id = timings.request_id
        problem: Problem | None = None

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id),
                    (b"server-timing", timings.header()),
                ]
                close = (
                    state.draining
                    or (problem is not None and problem.closes)
                    or not connection.keeps(refused=problem is not None)
                )
                message["headers"] += connection.headers(close=close)
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
            if state.shadow is not None:
                for copy in scope["state"].get("copies", ()):
                    state.shadow.offer(copy)
        except ClientDisconnect:
            if connection.problem is not None:  # the connection has answered
                scope["state"]["problem"] = connection.problem
        except Problem as raised:
            raised.forget()
            problem = raised
        except Exception:
            # The last resort: whatever the error is, the client gets an answer and the log gets the
            # cause.
            logger.exception("%s %s failed", scope["method"], quote(scope["path"]))
            if started:
                raise
            problem = InternalError("the gateway failed; its log has the cause under request_id")
        if problem is not None:
            scope["state"]["problem"] = problem
            dialect = of_path(self._dialects, scope["path"])
            await _answer(problem, timings.request_id, dialect, send_with_headers)


def request_id_of(scope: Scope) -> bytes:
    """The client's own id for its request if it is a sane one, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and SANE_ID.fullmatch(value):
            return bytes(value)
    # Not `uuid4`, a system call: the id must be unique, not secret.
    return b"%032x" % random.getrandbits(128)


async def _answer(problem: Problem, request_id: str, dialect: Dialect | None, send: Send) -> None:
    headers = problem.headers()
    if dialect is None:
        body = problem.body(request_id)
    else:
        body = json.dumps(dialect.error(problem, request_id), ensure_ascii=False).encode()
        headers[0] = (b"content-type", b"application/json")
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": int(problem.status), "headers": headers})
    await send({"type": "http.response.body", "body": body})
