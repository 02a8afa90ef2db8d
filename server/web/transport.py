"""The transport to one client: asyncio's, with control over how an answer is sent and ends.

In: what a server writes. Out: the same bytes, the head of an answer and its body in one piece. The
server may close the transport at any time: the connection that made it decides what that means.
"""

import asyncio
import socket
import struct
import sys
from collections.abc import Callable

# What every answer of HTTP/1.1 begins with (RFC 9112, 4), whatever the request's version.
BEGINNING = b"HTTP/1.1 "
TCP_CLOSE = 7  # a state of Linux' struct tcp_info, whose first byte is the state


class ClientTransport(asyncio.Transport):
    """Wraps a transport of asyncio.

    uvicorn writes head and body one after the other. Each would be a system call and a segment of
    its own, and the client would wake twice: a tenth of the work for a small image. So both are
    sent together at the end of a turn of the event loop; then clients also ask again together, and
    their images share a batch.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        patience: float,
        close: Callable[[], None],
    ) -> None:
        """`close` is called when the server closes; it has to call `finish`, sooner or later.

        `patience` is how many seconds a client may take to take what was written before the end.
        """
        super().__init__()
        self.answering = False  # whether anything of the final answer has been written
        self._transport = transport
        self._loop = loop
        self._patience = patience
        self._close = close
        self._closing = False  # for the server
        self._finished = False
        self._parts: list[bytes] = []
        self._began_early = False
        self._held: set[str] = set()  # who does not want to read

    # What the server calls.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send data; a head is sent together with the data that follows in the same turn."""
        if self._closing:
            return
        data = bytes(data)
        if self._began_early:
            self._began_early = False
            data = data.removeprefix(BEGINNING)
        self.answering = self.answering or not data.startswith(b"HTTP/1.1 1")
        if self._parts:
            self._parts.append(data)
        elif data.endswith(b"\r\n\r\n"):
            self._parts.append(data)
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Write nothing more."""
        if not self._closing:
            self._closing = True
            self._flush()
            self._close()

    def abort(self) -> None:
        """Close without sending what has not been sent."""
        self._closing = self._finished = True
        self._transport.abort()

    def is_closing(self) -> bool:
        """Whether the server may write."""
        return self._closing or self._transport.is_closing()

    def pause_reading(self) -> None:
        """Take no more from the client until `resume_reading`."""
        self.hold("server")

    def resume_reading(self) -> None:
        """Read from the client again."""
        self.let_go("server")

    def get_extra_info(self, name: str, default: object = None) -> object:
        """As the wrapped transport."""
        return self._transport.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        """How many bytes the client has not taken."""
        return self._transport.get_write_buffer_size()

    # What the connection calls.

    @property
    def closes_by_half(self) -> bool:
        """Whether each side can be closed by itself; asyncio's TLS closes both."""
        return self._transport.get_extra_info("sslcontext") is None

    def hold(self, who: str) -> None:
        """Take no more from the client until all who hold it have let go."""
        if not self._held and not self._transport.is_closing():
            self._transport.pause_reading()
        self._held.add(who)

    def let_go(self, who: str) -> None:
        """Take data again, if nobody else holds it."""
        if who in self._held:
            self._held.discard(who)
            if not self._held and not self._transport.is_closing():
                self._transport.resume_reading()

    def begin_early(self) -> None:
        """Send the first bytes of every answer: a client that is gone resets the connection."""
        if not (self._began_early or self._parts or self.answering or self._closing):
            self._began_early = True
            self._transport.write(BEGINNING)

    def is_reset(self) -> bool:
        """Whether the client has reset the connection, even while nothing is read from it.

        Only Linux reports that; elsewhere such a client is noticed when its answer is sent.
        """
        line = self._transport.get_extra_info("socket")
        tells = sys.platform == "linux" and line is not None
        if not tells or line.family not in {socket.AF_INET, socket.AF_INET6}:
            return False
        state: int = struct.unpack("B", line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1))[0]
        return state == TCP_CLOSE

    def send_last(self, data: bytes) -> None:
        """Send the whole last answer, which is not the server's."""
        if self._began_early:
            self._began_early = False
            data = data.removeprefix(BEGINNING)
        self._transport.write(data)

    def end(self) -> None:
        """Close the sending side; input is received again, whoever held it."""
        self._closing = True
        self._flush()
        if self._held:
            self._held.clear()
            self._transport.resume_reading()
        if self.closes_by_half:
            self._transport.write_eof()

    def finish(self) -> None:
        """Close the connection when everything has been sent, or the client does not take it."""
        self._closing = True
        if self._finished:
            return
        self._finished = True
        self._flush()
        if not self._transport.is_closing() and self._transport.get_write_buffer_size():
            self._loop.call_later(self._patience, self._transport.abort)
        self._transport.close()

    def cut(self) -> None:
        """Let the server write nothing more; what it has written of an answer is sent."""
        self._closing = True
        self._flush()

    def _flush(self) -> None:
        if self._parts:
            parts, self._parts = self._parts, []
            if not self._transport.is_closing():  # else the client has gone
                self._transport.write(b"".join(parts))
