"""One exchange on loopback, against a server that answers as the test says."""

import asyncio

import pytest

from server.local_triton.loopback import Answer, ExchangeError, exchange
from server.local_triton.supervisor import free_port


def ask(answer: bytes) -> tuple[Answer, bytes]:
    """The answer as it was read, and the request as it came."""

    async def main() -> tuple[Answer, bytes]:
        received = b""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal received
            received = await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(4)
            writer.write(answer)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await exchange(port, "POST", "/x", b"body", {"Key": "k"}), received

    return asyncio.run(main())


def test_sends_and_reads_whole_messages() -> None:
    answer, request = ask(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nA: b\r\n\r\n[1, 2]\n")
    assert answer.json() == [1, 2]
    assert answer.headers["a"] == "b"
    head, _, body = request.partition(b"\r\n\r\n")
    assert body == b"body"
    assert head.split(b"\r\n")[0] == b"POST /x HTTP/1.1"
    assert {b"Host: 127.0.0.1", b"Content-Length: 4", b"Key: k"} <= set(head.split(b"\r\n"))


def test_an_error_is_reported_in_tritons_words() -> None:
    body = b'{"error": "no such model"}'
    answer, _ = ask(b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    with pytest.raises(ExchangeError, match="404: no such model"):
        answer.good()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        b"nonsense\r\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
    ],
)
def test_half_an_answer_is_an_error(answer: bytes) -> None:
    with pytest.raises(ExchangeError):
        ask(answer)


def test_what_is_no_json_is_an_error() -> None:
    answer, _ = ask(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{")
    with pytest.raises(ExchangeError, match="no JSON"):
        answer.json()


def test_nobody_listening_is_an_error_of_the_system() -> None:
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        asyncio.run(exchange(free_port(), "GET", "/"))


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_no_proxy_stands_between(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert ask(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")[0].status == 200
