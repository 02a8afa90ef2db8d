"""HTTP as clients speak it: the exchanges with a real gateway and Triton."""

import re
import socket
import time

import pytest

from tests.server.web.exchanges import EXCHANGES, Exchange
from tests.stack import Gateway

SECONDS = 30.0
PAUSE_SECONDS = 0.02  # between pieces, so that they come one by one
STILL_SECONDS = 0.1  # in which a connection that is kept does not close


def answers(data: bytes) -> list[tuple[int, bytes]]:
    """Status and body of each whole answer but those that only say to go on."""
    found = []
    while (end := data.find(b"\r\n\r\n")) >= 0:
        head, data = data[:end], data[end + 4 :]
        status = int(head.split(b" ", 2)[1])
        assert head.startswith(b"HTTP/1.1 ")
        if status < 200:
            continue
        length = re.search(rb"(?i)\ncontent-length: (\d+)", head)
        assert length, "every answer here has a length"
        if len(data) < int(length[1]):
            break
        found.append((status, data[: int(length[1])]))
        data = data[int(length[1]) :]
    return found


def talk(line: socket.socket, exchange: Exchange) -> tuple[bytes, bool]:
    """All that comes, and whether the gateway has closed."""
    data = b""
    line.settimeout(PAUSE_SECONDS)

    def receive() -> bool:
        nonlocal data
        try:
            part = line.recv(2**16)
        except TimeoutError:
            return False
        except ConnectionError:
            return True
        data += part
        return not part

    closed = False
    for piece in exchange.pieces:
        line.sendall(piece)
        closed = closed or receive()
    if exchange.half_close:
        line.shutdown(socket.SHUT_WR)
    deadline = time.monotonic() + SECONDS
    while not closed and time.monotonic() < deadline:
        if len(answers(data)) >= len(exchange.statuses) and not exchange.closes:
            break
        closed = receive()
    if exchange.kept and not closed:
        line.settimeout(STILL_SECONDS)
        closed = receive()
    return data, closed


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.name)
def test_an_exchange(gateway: Gateway, exchange: Exchange) -> None:
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), SECONDS) as line:
        data, closed = talk(line, exchange)
    came = answers(data)
    statuses = tuple(status for status, _ in came)
    wanted = len(exchange.statuses)
    assert statuses[:wanted] == exchange.statuses, data[:2000]
    assert set(statuses[wanted:]) <= {400, 408}
    assert len(statuses) <= wanted + 1
    assert exchange.never not in data
    if wanted:
        assert exchange.says in came[wanted - 1][1], came
    if exchange.closes or exchange.kept:
        assert closed is exchange.closes


def test_nothing_of_it_is_a_fault_of_the_gateway(gateway: Gateway) -> None:
    """After all of those above."""
    assert "Traceback" not in gateway.log.read_text()
