"""server/web/framing.py on a real connection: trailers, upgrades, odd targets and lengths."""

import asyncio
import contextlib

import pytest

from server.web.framing import Framing
from tests.server.web.in_process import (
    LIVE,
    POST,
    connected,
    on_uvloop,
    one_answer,
    open_connections,
    serving,
    until_closed,
)


@pytest.mark.parametrize(
    "line", [pytest.param(b"a: b\r\n", id="many"), pytest.param(b"aaaaaaaa", id="one")]
)
@on_uvloop
async def test_trailers_have_an_end(line: bytes) -> None:
    async with connected() as (made, reader, writer):
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


@on_uvloop
async def test_a_few_trailers_do_no_harm() -> None:
    async with connected() as (_, reader, writer):
        for _ in range(3):
            writer.write(LIVE + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\na: b\r\n\r\n")
            assert b" 200 " in await one_answer(reader)


@on_uvloop
async def test_an_unclear_next_request_closes_the_connection() -> None:
    async with connected() as (_, reader, writer):
        writer.write(LIVE + b"Expect: 100-continue\r\nContent-Length: 99\r\n\r\n")
        answers = await until_closed(reader)
        assert answers.startswith(b"HTTP/1.1 200 ")
        assert answers.count(b"HTTP/1.1 ") == 1
        assert answers.count(b"connection: close") == 1


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"


@pytest.mark.parametrize("pieces", [1, 7, 1000])
@on_uvloop
async def test_another_protocol_is_not_spoken_and_the_body_is_read_all_the_same(
    pieces: int,
) -> None:
    async with connected() as (_, reader, writer):
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


@pytest.mark.parametrize(
    "target",
    [b"GET http://host", b"GET http://x:99999/", b"CONNECT a:1", b"CONNECT /livez", b"GET \xff"],
)
@on_uvloop
async def test_an_invalid_target_is_refused(
    target: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected() as (_, reader, writer):
        writer.write(target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        answers = await until_closed(reader)
        assert answers.startswith(b"HTTP/1.1 400 ")
        assert answers.count(b"HTTP/1.1 ") == 1
    assert not caplog.records


@on_uvloop
async def test_a_fault_of_our_own_is_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    async with serving() as (_, connect):
        monkeypatch.setattr(Framing, "on_headers_complete", fail)
        reader, writer = await connect()
        writer.write(LIVE + b"\r\n")
        await until_closed(reader)
        writer.close()
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(("head", "status"), [(LIVE, b" 200 "), (POST, b" 503 ")])
@on_uvloop
async def test_zeros_without_end_are_zero(head: bytes, status: bytes) -> None:
    async with connected() as (_, reader, writer):
        writer.write(head + b"Content-Length: " + b"0" * 4400 + b"\r\n\r\n")
        assert status in await one_answer(reader)


@on_uvloop
async def test_no_path_has_two_names() -> None:
    async with connected() as (_, reader, writer):
        writer.write(POST.replace(b"/classify", b"/classify/") + b"Content-Length: 0\r\n\r\n")
        assert b" 404 " in await one_answer(reader)
