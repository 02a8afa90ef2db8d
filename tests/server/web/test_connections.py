"""What clients do with a connection that no honest one does, against a gateway in this process.

It runs in this process, on a real socket, so that its clocks can be shortened and its admission
told to refuse; no Triton stands behind it, and none is needed.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import cast

import pytest
import uvloop

from server.problems import TooBusy
from server.process import gateway
from server.process.gateway import Gateway
from server.process.listeners import Listeners
from server.serving.classify import Classifier
from server.settings import Settings
from server.web import connections, load_shedding
from server.web.connections import ClientConnection
from server.web.framing import MAX_HEAD_BYTES, Framing
from server.web.parameters import Asked

LIVE = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
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


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(LIVE + b"\r\n", b"\r\n", id="an empty line"),
        pytest.param(POST.replace(b"/classify", b"/no") + b"Content-Length: 4\r\n\r\n", b"rest"),
    ],
)
def test_an_idle_connection_is_closed_whatever_came_last(before: bytes, after: bytes) -> None:
    async def run() -> None:
        async with serving(1) as (_, connect):
            reader, writer = await connect()
            writer.write(before)
            await one_answer(reader)
            writer.write(after)
            await until_closed(reader)
            writer.close()

    uvloop.run(run())


def test_a_refusal_is_kept_alive_when_its_body_comes_late() -> None:
    async def run() -> None:
        async with serving(3, full=True) as (_, connect):
            reader, writer = await connect()
            for _ in range(3):
                writer.write(POST + b"Content-Length: 4\r\n\r\n")
                assert b" 429 " in await one_answer(reader)
                writer.write(b"rest")
            await until_closed(reader)
            writer.close()

    uvloop.run(run())


@pytest.mark.parametrize(
    "line", [pytest.param(b"a: b\r\n", id="many"), pytest.param(b"aaaaaaaa", id="one")]
)
def test_trailers_have_an_end(line: bytes) -> None:
    async def run() -> None:
        async with serving() as (made, connect):
            reader, writer = await connect()
            writer.write(LIVE + b"Transfer-Encoding: chunked\r\n\r\n0\r\n")
            await one_answer(reader)
            (connection,) = open_connections(made)
            most = 0
            with contextlib.suppress(ConnectionError):
                for _ in range(50):
                    writer.write(line * (8192 // len(line)))
                    await writer.drain()
                    await asyncio.sleep(0.001)
                    most = max(most, len(connection.framing.fields))
                pytest.fail("trailers went on and on")
            assert most <= 5  # those of the head
            assert await until_closed(reader) == b""
            writer.close()

    uvloop.run(run())


def test_a_few_trailers_do_no_harm() -> None:
    async def run() -> None:
        async with serving() as (_, connect):
            reader, writer = await connect()
            for _ in range(3):
                writer.write(
                    LIVE + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\na: b\r\n\r\n"
                )
                assert b" 200 " in await one_answer(reader)
            writer.close()

    uvloop.run(run())


@pytest.mark.parametrize("last", [b"", b"\0\r\n"], ids=["silent", "malformed"])
def test_who_does_not_read_is_shown_out(last: bytes) -> None:
    async def run() -> None:
        async with serving(1) as (made, connect):
            _, writer = await connect()
            # Answers until the gateway's socket takes no more, and this one is never read.
            deafen(writer)
            writer.write((b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n") * 1000)
            await until(lambda: open_connections(made))
            (connection,) = open_connections(made)
            await until(lambda: connection.unsent() > 2**16)
            writer.write(last)
            await until(lambda: not open_connections(made) and not made.server_state.tasks)
            writer.close()

    uvloop.run(run())


def test_refusals_pile_up_for_nobody() -> None:
    async def run() -> None:
        async with serving(1, full=True) as (made, connect):
            _, writer = await connect()
            deafen(writer)
            head = POST + b"Content-Length: 0\r\n\r\n"
            most = 0

            async def look() -> None:
                nonlocal most
                while True:
                    most = max([most, *(each.unsent() for each in open_connections(made))])
                    await asyncio.sleep(0.01)

            looking = asyncio.create_task(look())
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(20):
                    while open_connections(made) or not most:
                        writer.write(head * 1000)
                        await asyncio.wait_for(writer.drain(), 5)
            looking.cancel()
            assert 0 < most < 2**20
            writer.close()

    uvloop.run(run())


def test_many_refusals_in_one_piece(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with serving(full=True) as (_, connect):
            reader, writer = await connect()
            writer.write(LIVE + b"\r\n" + (POST + b"Content-Length: 0\r\n\r\n") * 1500)
            assert b" 200 " in await one_answer(reader)
            for _ in range(1500):
                assert b" 429 " in await one_answer(reader)
            writer.close()

    uvloop.run(run())
    assert "Traceback" not in caplog.text


def test_nothing_is_done_after_a_refusal(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with serving() as (_, connect):
            for rest in (LIVE + b"\r\n", b"\0\0\0"):
                reader, writer = await connect()
                writer.write(LIVE + b"X: " + b"x" * (MAX_HEAD_BYTES + 10) + b"\r\n\r\n" + rest)
                answers = await until_closed(reader)
                assert answers.startswith(b"HTTP/1.1 431 ")
                assert answers.count(b"HTTP/1.1 ") == 1
                writer.close()

    with caplog.at_level(logging.WARNING):
        uvloop.run(run())
    assert not [record for record in caplog.records if record.exc_info]


def test_who_cannot_tell_what_comes_next_closes() -> None:
    async def run() -> None:
        async with serving() as (_, connect):
            reader, writer = await connect()
            writer.write(LIVE + b"Expect: 100-continue\r\nContent-Length: 99\r\n\r\n")
            answers = await until_closed(reader)
            assert answers.startswith(b"HTTP/1.1 200 ")
            assert answers.count(b"HTTP/1.1 ") == 1
            assert answers.count(b"connection: close") == 1
            writer.close()

    uvloop.run(run())


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_another_protocol_is_not_spoken_and_the_body_is_read_all_the_same(pieces: int) -> None:
    async def run() -> None:
        async with serving() as (_, connect):
            reader, writer = await connect()
            form = POST.replace(b"image/jpeg", b"multipart/form-data; boundary=b")
            one = form + UPGRADE + b"Content-Length: 5\r\n\r\n--b--"
            last = LIVE + UPGRADE.replace(b"Upgrade,", b"close, Upgrade,") + b"\r\n"
            sent = one + one + LIVE + UPGRADE + b"\r\n" + last
            size = -(-len(sent) // pieces)
            for at in range(0, len(sent), size):
                writer.write(sent[at : at + size])
                await asyncio.sleep(0.001 if pieces > 1 else 0)
            answers = await until_closed(reader)
            statuses = [int(each[:3]) for each in answers.split(b"HTTP/1.1 ")[1:]]
            assert statuses == [503, 503, 200, 200]
            writer.close()

    uvloop.run(run())


@pytest.mark.parametrize(
    "target",
    [b"GET http://host", b"GET http://x:99999/", b"CONNECT a:1", b"CONNECT /livez", b"GET \xff"],
)
def test_a_target_that_is_none_is_told(target: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with serving() as (_, connect):
            reader, writer = await connect()
            writer.write(target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            answers = await until_closed(reader)
            assert answers.startswith(b"HTTP/1.1 400 ")
            assert answers.count(b"HTTP/1.1 ") == 1
            writer.close()

    uvloop.run(run())
    assert not caplog.records


def test_a_fault_of_our_own_is_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    async def run() -> None:
        async with serving() as (_, connect):
            monkeypatch.setattr(Framing, "on_headers_complete", fail)
            reader, writer = await connect()
            writer.write(LIVE + b"\r\n")
            await until_closed(reader)
            writer.close()

    uvloop.run(run())
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(("head", "status"), [(LIVE, b" 200 "), (POST, b" 503 ")])
def test_zeros_without_end_are_zero(head: bytes, status: bytes) -> None:
    async def run() -> None:
        async with serving() as (_, connect):
            reader, writer = await connect()
            writer.write(head + b"Content-Length: " + b"0" * 4400 + b"\r\n\r\n")
            assert status in await one_answer(reader)
            writer.close()

    uvloop.run(run())


def test_load_shedding_that_fails_lets_in(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise ZeroDivisionError

    async def run() -> None:
        async with serving() as (_, connect):
            monkeypatch.setattr(load_shedding, "Headers", fail)
            reader, writer = await connect()
            writer.write(POST + b"Content-Length: 0\r\n\r\n")
            assert b" 503 " in await one_answer(reader)
            writer.close()

    uvloop.run(run())
    assert "ZeroDivisionError" in caplog.text


def test_no_path_has_two_names() -> None:
    async def run() -> None:
        async with serving() as (_, connect):
            reader, writer = await connect()
            writer.write(POST.replace(b"/classify", b"/classify/") + b"Content-Length: 0\r\n\r\n")
            assert b" 404 " in await one_answer(reader)
            writer.close()

    uvloop.run(run())
