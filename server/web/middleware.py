"""What every response has in common: an id, its timings, and problems for errors.

In: any ASGI request. Out: the app's response with `X-Request-ID` and `Server-Timing` (W3C Server
Timing), or, when the app raised, the problem document that tells the client why.
"""

import asyncio
import logging
import random
import re
import time
from collections.abc import Iterable
from urllib.parse import quote

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.observability import logs
from server.observability.timings import Timings
from server.problems import InternalError, Problem

logger = logging.getLogger(__name__)

SANE_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:+/=@-]{0,127}")
# How long the rest of a refused body is read and thrown away. Closing at once would reset the
# connection, and a client that is still sending would never see the answer.
LINGER_SECONDS = 2.0
# Of a body that nobody wanted, what is thrown away to keep the connection.
SMALL_BODY = 2**20


class Envelope:
    """ASGI middleware around the whole app. Puts `Timings` into the request's state."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

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
        # Where the connection is to be closed, even little that is not read would reset it.
        unread = not is_small(scope["headers"]) or _is_last(scope)

        async def receive_and_note() -> Message:
            nonlocal unread
            message = await receive()
            unread = bool(message.get("more_body", False))
            return message

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id),
                    (b"server-timing", timings.header()),
                ]
                last = scope["app"].state.draining or (unread and _is_asking(scope))
                if last and (b"connection", b"close") not in message["headers"]:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            await self.app(scope, receive_and_note, send_with_headers)
        except ClientDisconnect:
            logger.debug("the client went away")
        except Problem as problem:
            problem.forget()
            scope["state"]["problem"] = problem
            await _answer(problem, request_id, receive if unread else None, send_with_headers)
        except Exception:
            # The last line: whatever it is, the client gets an answer and the log the cause.
            logger.exception("%s %s failed", scope["method"], quote(scope["path"]))
            if started:
                raise
            failure = InternalError("the gateway failed; its log has the cause under request_id")
            scope["state"]["problem"] = failure
            await _answer(failure, request_id, receive if unread else None, send_with_headers)


def request_id_of(scope: Scope) -> bytes:
    """The client's own id for its request if it is a sane one, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and SANE_ID.fullmatch(value):
            return bytes(value)
    # Not `uuid4`, a system call: the id must be other than all others, not secret.
    return b"%032x" % random.getrandbits(128)


def is_small(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the body, if there is one, is small enough to be thrown away."""
    for name, value in headers:
        if name == b"content-length":
            # Python reads no number of thousands of digits, be they zeros.
            digits = value.lstrip(b"0") or b"0"
            return len(digits) < 10 and digits.isdigit() and int(digits) <= SMALL_BODY
        if name == b"transfer-encoding":
            return False
    return True


def _is_last(scope: Scope) -> bool:
    """Whether the connection is closed after an answer that did not wait for the body."""
    if scope["http_version"] == "1.0" or scope["app"].state.draining or _is_asking(scope):
        return True
    return any(
        name == b"connection" and b"close" in value.lower() for name, value in scope["headers"]
    )


def _is_asking(scope: Scope) -> bool:
    """Whether the client asked if it should send the body (`Expect`).

    Answered before, it may now do so or not: nobody could tell what comes next.
    """
    return any(name == b"expect" for name, _ in scope["headers"])


async def _answer(problem: Problem, request_id: bytes, unread: Receive | None, send: Send) -> None:
    """Send the problem; `unread` gives the rest of a body that nobody has read."""
    body = problem.body(request_id.decode())
    headers = [*problem.headers(), (b"content-length", str(len(body)).encode())]
    if unread is not None:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": int(problem.status), "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": unread is not None})
    if unread is not None:
        await _linger(unread)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _linger(receive: Receive) -> None:
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            message = await receive()
            while message["type"] == "http.request" and message.get("more_body", False):
                message = await receive()
    except TimeoutError:
        pass
