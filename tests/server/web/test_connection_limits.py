"""web/connection_limits.py alone, and with real connections."""

import asyncio
import contextlib

import pytest
import uvloop

from server.problems import ModelNotReady
from server.serving.readiness import Readiness
from server.web.connection_limits import ConnectionLimits
from tests.server.web.in_process import (
    LIVE,
    one_answer,
    open_connections,
    serving,
    until,
    until_closed,
)


class Client:
    """A connection that only notes what it is told."""

    def __init__(self) -> None:
        self.made_room = 0

    def make_room(self) -> None:
        self.made_room += 1


def test_the_one_that_has_waited_longest_makes_room() -> None:
    limits = ConnectionLimits(3)
    first, second, third, fourth, fifth = (Client() for _ in range(5))
    for client in (first, second, third):
        assert limits.opens(client)
    limits.begins(first)
    limits.waits(first)  # after the others now
    assert limits.opens(fourth)
    assert (first.made_room, second.made_room, third.made_room) == (0, 1, 0)
    for client in (first, third, fourth):
        limits.begins(client)
    assert not limits.opens(fifth)
    limits.closes(third)
    assert limits.opens(fifth)
    assert len(limits.open) == 3


def test_the_oldest_unfinished_head_makes_room_for_bytes() -> None:
    limits = ConnectionLimits(100, max_bytes_of_heads=1000)
    first, second, third = (Client() for _ in range(3))
    for client in (first, second, third):
        limits.opens(client)
    assert limits.holds(first, 300)
    assert limits.holds(second, 100)
    assert not limits.holds(first, 600)
    assert limits.holds(third, 400)
    assert (first.made_room, second.made_room, third.made_room) == (1, 0, 0)
    # What was held has been given back.
    assert limits.holds(first, 500)
    assert second.made_room == 0
    limits.closes(second)
    limits.holds(first, 600)
    assert (first.made_room, third.made_room) == (1, 0)


def test_idle_connections_make_room_for_new_ones() -> None:
    async def run() -> None:
        async with serving(max_connections=3) as (made, connect):
            clients = []
            for _ in range(5):
                reader, writer = await connect()
                clients.append((reader, writer))
                writer.write(LIVE + b"\r\n")
                assert b" 200 " in await one_answer(reader)
            for reader, _ in clients[:2]:
                assert await until_closed(reader) == b""
            await until(lambda: len(open_connections(made)) == 3)
            for reader, writer in clients[2:]:
                writer.write(LIVE + b"\r\n")
                assert b" 200 " in await one_answer(reader)
            for _, writer in clients:
                writer.close()

    uvloop.run(run())


def test_where_all_are_at_work_a_new_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        done = asyncio.Event()

        async def wait(_: object) -> None:
            await done.wait()
            raise ModelNotReady("it was waited for")

        monkeypatch.setattr(Readiness, "check", wait)
        async with serving(max_connections=2) as (made, connect):
            busy = [await connect() for _ in range(2)]
            for _, writer in busy:
                writer.write(LIVE.replace(b"livez", b"readyz") + b"\r\n")
            both = made.connections.open
            await until(lambda: len(both) == 2 and not made.connections.waiting)
            reader, writer = await connect()
            answer = await until_closed(reader)
            assert answer.startswith(b"HTTP/1.1 429 ")
            assert b"\r\nretry-after: 1\r\n" in answer
            assert b"2 connections are open" in answer
            writer.close()
            done.set()
            for reader, writer in busy:
                assert b" 503 " in await one_answer(reader)
                writer.close()

    uvloop.run(run())


def test_unfinished_heads_share_a_budget() -> None:
    async def run() -> None:
        async with serving() as (made, connect):
            made.connections.max_bytes_of_heads = 1000
            slow = [await connect() for _ in range(3)]
            for _, writer in slow:
                writer.write(LIVE + b"X: " + b"x" * 400)
                await asyncio.sleep(0.05)
            answer = await until_closed(slow[0][0])
            assert answer.startswith(b"HTTP/1.1 408 ")
            for reader, writer in slow[1:]:
                writer.write(b"\r\n\r\n")
                assert b" 200 " in await one_answer(reader)
            for _, writer in slow:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

    uvloop.run(run())


def test_a_connection_ends_after_its_requests() -> None:
    async def test() -> None:
        async with serving(requests_per_connection=3) as (_, connect):
            for _ in range(2):
                reader, writer = await connect()
                for number in range(3):
                    writer.write(LIVE + b"\r\n")
                    answer = await one_answer(reader)
                    assert answer.startswith(b"HTTP/1.1 200")
                    assert (b"connection: close" in answer) == (number == 2)
                assert await until_closed(reader) == b""
                writer.close()

    asyncio.run(test())


def test_what_was_sent_behind_the_last_request_is_not_answered() -> None:
    """A client knows by `Connection: close` that it has to ask again (RFC 9112, 9.6)."""

    async def test() -> None:
        async with serving(requests_per_connection=2) as (_, connect):
            reader, writer = await connect()
            writer.write((LIVE + b"\r\n") * 3)
            data = await until_closed(reader)
            assert data.count(b"HTTP/1.1 200") == 2
            assert data.count(b"connection: close") == 1
            writer.close()

    asyncio.run(test())
