"""The HTTP client of the load engine, against servers that answer in every way they may."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from loadtest.load import loop
from loadtest.load.http import FAILURES, Http, Response
from loadtest.load.http_target import InTurn, StatusTarget
from loadtest.load.target import BusyError, TargetError

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer-Timing: decode;dur=1.5\r\n\r\nhi"


@contextlib.asynccontextmanager
async def serving(*answers: bytes) -> AsyncIterator[tuple[str, list[int]]]:
    """A server that gives these answers in turn, closing after an empty one or an empty piece.

    Its address, and for each connection how many requests came on it. At the end both ends have
    seen that the other has closed.
    """
    seen: list[int] = []
    turns = iter(answers)
    handlers: set[asyncio.Task[Any]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(seen)
        seen.append(0)
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        with contextlib.suppress(asyncio.IncompleteReadError, StopIteration, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                seen[number] += 1
                answer = next(turns)
                for part in answer.split(b"|"):  # what arrives in pieces
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0.01)
                if not part:
                    break
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield "http://{}:{}".format(*server.sockets[0].getsockname()[:2]), seen
        # A client closes its connections before this; then each handler comes to its end.
        await asyncio.gather(*handlers)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Within a deadline."""
    loop.run(asyncio.wait_for(test(), 20))  # as every program does


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.1 200 OK\r\nContent-|Length: 2\r\n|Server-Timing: decode;dur=1.5\r\n\r|\nh|i",
        b"HTTP/1.1 200 OK\r\nServer-Timing: decode;dur=1.5\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"1\r\nh\r\n1\r\ni\r\n0\r\n\r\n",
    ],
    ids=["whole", "in pieces", "chunked"],
)
def test_an_answer_is_read_whole(answer: bytes) -> None:
    async def test() -> None:
        async with serving(answer) as (url, _):
            http = Http(url)
            response = await http.exchange(http.request("/"))
            assert (response.status, response.body) == (200, b"hi")
            assert response.header(b"server-timing") == "decode;dur=1.5"
            assert not response.header(b"retry-after")
            http.close()

    run(test)


def test_a_connection_is_kept_unless_the_server_closes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtest.load.http.IDLE_SECONDS", 60.0)  # on however busy a machine

    async def test() -> None:
        closing = OK.replace(b"\r\nServer", b"\r\nConnection: close\r\nServer")
        async with serving(OK, OK, closing, OK) as (url, seen):
            http = Http(url)
            for _ in range(4):
                assert (await http.exchange(http.request("/"))).status == 200
            assert seen == [3, 1]
            http.close()

    run(test)


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi|", b"no HTTP at all\r\n\r\n"],
    ids=["none", "half", "garbage"],
)
def test_no_whole_answer_is_a_failure_and_never_repeated(answer: bytes) -> None:
    async def test() -> None:
        async with serving(answer) as (url, seen):
            http = Http(url)
            with pytest.raises(FAILURES):
                await http.exchange(http.request("/"))
            assert seen == [1]

    run(test)


def test_the_statuses_of_a_target() -> None:
    async def test() -> None:
        busy = b"HTTP/1.1 429 Busy\r\nContent-Length: 3\r\n\r\nbsy"
        async with serving(OK, busy) as (url, _):
            http = Http(url)
            target = InTurn([StatusTarget(http, [http.request("/")], 16)])
            assert target.images == 16
            right, refused = await target.ask(0), await target.ask(1)
            assert (right.error, right.status, right.phases) == ("", 200, {"decode": 1.5})
            assert (refused.error, refused.status) == ("status 429: bsy", 429)
            http.close()
        nobody = await target.ask(2)
        assert nobody.status == 0
        assert nobody.error.startswith("no answer: Connection")

    run(test)


def test_documents_and_what_is_none() -> None:
    async def test() -> None:
        document = b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"a": 1}'
        busy = b"HTTP/1.1 429 Busy\r\nContent-Length: 0\r\n\r\n"
        away = b"HTTP/1.1 503 Away\r\nContent-Length: 4\r\n\r\naway"
        async with serving(document, OK, busy, away) as (url, _):
            http = Http(url)
            request = http.request("/models")
            assert await http.json(request) == {"a": 1}
            with pytest.raises(TargetError, match=r"GET /models HTTP/1\.1: Expecting value"):
                await http.json(request)
            with pytest.raises(BusyError):
                await http.json(request)
            with pytest.raises(TargetError, match="status 503: away"):
                await http.json(request)
            http.close()

    run(test)


@pytest.mark.parametrize(
    "url", ["https://example.org", "127.0.0.1:8000", "http://", "http://a:80000", "http://a:b"]
)
def test_what_is_no_address_is_said(url: str) -> None:
    with pytest.raises(TargetError, match=r"expected an address such as http://127\.0\.0\.1:8000"):
        Http(url)


def test_a_fault_of_this_program_is_no_failure_of_the_server() -> None:
    class Faulty(Http):
        async def exchange(self, request: bytes) -> Response:
            raise ValueError(request)

    http = Faulty("http://127.0.0.1:1")
    with pytest.raises(ValueError, match="GET"):
        loop.run(StatusTarget(http, [http.request("/")]).ask(0))


def test_an_answer_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtest.load.http.PATIENCE", 0.3)

    async def test() -> None:
        async with serving(OK[:-1]) as (url, _):
            http = Http(url)
            target = StatusTarget(http, [http.request("/")])
            assert (await target.ask(0)).error == "no answer: TimeoutError"

    run(test)
