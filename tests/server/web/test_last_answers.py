"""The last answer of a connection, with a transport that records what was sent before it closed."""

import asyncio

from server.web.connection_limits import ConnectionLimits
from server.web.connections import STATE, ClientConnection

LIVE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD, BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"{}"


class Recorder(asyncio.Transport):
    """What asyncio's own transport does with writes and closing, as far as it matters here."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self.sent += bytes(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0


class Server(asyncio.Protocol):
    """Answers each piece at once, head and body one after the other, as uvicorn does."""

    def __init__(self, state: dict[str, object]) -> None:
        self._state = state

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - whatever it is
        self._transport.write(HEAD)
        self._transport.write(BODY)
        connection = self._state[STATE]
        assert isinstance(connection, ClientConnection)
        connection.answered()


def test_the_end_in_the_turn_of_the_last_answer_loses_nothing() -> None:
    """A client that closes its sending side after its request gets its answer (RFC 9112, 9.6)."""

    async def test() -> None:
        transport = Recorder()
        limits = ConnectionLimits(8, 2**20)
        connection = ClientConnection(Server, {}, limits, 60.0, log_refusals=False)
        connection.connection_made(transport)
        connection.data_received(LIVE)
        assert not connection.eof_received()
        transport.close()  # what asyncio does when that was false
        await asyncio.sleep(0)
        connection.connection_lost(None)
        assert transport.sent == HEAD + BODY

    asyncio.run(test())
