"""server/web/connections.py: clients that are idle, slow, or send more than they may."""

import asyncio
import contextlib
import logging

import pytest

from server.web import load_shedding
from server.web.framing import MAX_HEAD_BYTES
from tests.server.web.in_process import (
    LIVE,
    POST,
    connected,
    deafen,
    on_uvloop,
    one_answer,
    open_connections,
    serving,
    until,
    until_closed,
)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(LIVE + b"\r\n", b"\r\n", id="an empty line"),
        pytest.param(POST.replace(b"/classify", b"/no") + b"Content-Length: 4\r\n\r\n", b"rest"),
    ],
)
@on_uvloop
async def test_an_idle_connection_is_closed_whatever_came_last(before: bytes, after: bytes) -> None:
    async with connected(1) as (_, reader, writer):
        writer.write(before)
        await one_answer(reader)
        writer.write(after)
        await until_closed(reader)


@on_uvloop
async def test_a_refusal_is_kept_alive_when_its_body_comes_late() -> None:
    async with connected(3, full=True) as (_, reader, writer):
        for _ in range(3):
            writer.write(POST + b"Content-Length: 4\r\n\r\n")
            assert b" 429 " in await one_answer(reader)
            writer.write(b"rest")
        await until_closed(reader)


@pytest.mark.parametrize("last", [b"", b"\0\r\n"], ids=["silent", "malformed"])
@on_uvloop
async def test_a_client_that_does_not_read_is_disconnected(last: bytes) -> None:
    async with connected(1) as (made, _, writer):
        # Answers until the gateway's socket takes no more, and this one is never read.
        deafen(writer)
        writer.write((b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n") * 1000)
        await until(lambda: open_connections(made))
        (connection,) = open_connections(made)
        await until(lambda: connection.unsent() > 2**16)
        writer.write(last)
        await until(lambda: not open_connections(made) and not made.server_state.tasks)


@on_uvloop
async def test_refusals_do_not_pile_up() -> None:
    async with connected(1, full=True) as (made, _, writer):
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


@on_uvloop
async def test_many_refusals_in_one_piece(caplog: pytest.LogCaptureFixture) -> None:
    async with connected(full=True) as (_, reader, writer):
        writer.write(LIVE + b"\r\n" + (POST + b"Content-Length: 0\r\n\r\n") * 1500)
        assert b" 200 " in await one_answer(reader)
        for _ in range(1500):
            assert b" 429 " in await one_answer(reader)
    assert "Traceback" not in caplog.text


@on_uvloop
async def test_nothing_is_done_after_a_refusal(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        async with serving() as (_, connect):
            for rest in (LIVE + b"\r\n", b"\0\0\0"):
                reader, writer = await connect()
                writer.write(LIVE + b"X: " + b"x" * (MAX_HEAD_BYTES + 10) + b"\r\n\r\n" + rest)
                answers = await until_closed(reader)
                assert answers.startswith(b"HTTP/1.1 431 ")
                assert answers.count(b"HTTP/1.1 ") == 1
                writer.close()
    assert not [record for record in caplog.records if record.exc_info]


@on_uvloop
async def test_load_shedding_that_fails_lets_in(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise ZeroDivisionError

    async with serving() as (_, connect):
        monkeypatch.setattr(load_shedding, "Headers", fail)
        reader, writer = await connect()
        writer.write(POST + b"Content-Length: 0\r\n\r\n")
        assert b" 503 " in await one_answer(reader)
        writer.close()
    assert "ZeroDivisionError" in caplog.text
