"""A gateway in the test's process, on a real socket, and a client that sends single bytes to it.

In this process its clocks can be shortened and its admission told to refuse; no Triton stands
behind it, and none is needed.
"""

import asyncio
import contextlib
import functools
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from types import SimpleNamespace
from typing import Any, ParamSpec, cast

import pytest
import uvloop

from server.problems import TooBusy
from server.process import gateway
from server.process.gateway import Gateway
from server.process.listeners import Listeners
from server.serving.classify import Classifier
from server.settings import Settings
from server.web import connections
from server.web.connections import ClientConnection
from server.web.parameters import Asked

LIVE = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
P = ParamSpec("P")
Opened = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def serving(
    patience: int = 60, *, full: bool = False, **settings: int
) -> AsyncIterator[tuple[Gateway, Callable[[], "asyncio.Future[Opened]"]]]:
    """A gateway, and how to connect to it; `patience` is how many seconds it waits for clients.

    With `full` there is never room for an image.
    """
    given = Settings.model_validate({"read_timeout": patience, "drain_seconds": 0, **settings})
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as listener:
        # So that little that is not read fills it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
        patch.setattr(connections, "KEEP_ALIVE_SECONDS", patience)
        if full:
            patch.setattr(Asked, "resolve", lambda *_: (SimpleNamespace(name="any"), 1))
            patch.setattr(Classifier, "check", refuse)
        made = gateway.make(given, "127.0.0.1:1")
        serve = asyncio.create_task(made.serve_on(Listeners(listener)))
        port = listener.getsockname()[1]

        def connect() -> asyncio.Future[Opened]:
            return asyncio.ensure_future(asyncio.open_connection("127.0.0.1", port))

        try:
            yield made, connect
        finally:
            made.stop()
            await asyncio.wait_for(serve, 60)


def refuse(*_: object) -> None:
    """Say that there is no room."""
    raise TooBusy("no room", 1)


def open_connections(made: Gateway) -> list[ClientConnection]:
    """Those that are open."""
    return cast("list[ClientConnection]", list(made.connections.open))


async def until(condition: Callable[[], object]) -> None:
    """Wait for it, not for ever."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what it looks at tells nobody
            await asyncio.sleep(0.02)


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    """All that comes; fails if the gateway does not close."""
    async with asyncio.timeout(60):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


def deafen(writer: asyncio.StreamWriter) -> None:
    """Read nothing more."""
    cast("asyncio.Transport", writer.transport).pause_reading()


async def one_answer(reader: asyncio.StreamReader) -> bytes:
    """An answer with a Content-Length: its head, and its body is skipped."""
    async with asyncio.timeout(60):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
    return head


@contextlib.asynccontextmanager
async def connected(
    patience: int = 60, *, full: bool = False
) -> AsyncIterator[tuple[Gateway, asyncio.StreamReader, asyncio.StreamWriter]]:
    """As `serving`, with one connection to the gateway."""
    async with serving(patience, full=full) as (made, connect):
        reader, writer = await connect()
        yield made, reader, writer
        writer.close()


def on_uvloop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """The test as a function that pytest can call, on the event loop of the gateway."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        uvloop.run(test(*args, **kwargs))

    return run
