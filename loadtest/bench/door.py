"""A port that stands for a pod's address in a Service: open while the pod is ready, then closed.

In: a port of this machine, and the port of the server behind it. Out: new connections are passed on
to the server while the port is open. Connections that exist when the port closes stay until either
side ends them.
"""

import asyncio
import contextlib

CHUNK = 2**18


class Door:
    """A port that passes connections on to another port, or refuses them."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._server: asyncio.Server | None = None
        self._behind = 0

    async def open(self, port: int) -> None:
        """Pass connections on to `port` from now on."""
        self._behind = port
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", self.port)

    async def close(self) -> None:
        """Refuse new connections."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._behind)
        except OSError:
            writer.close()
            return
        # The task is cancelled when the program ends, together with the event loop.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(_copy(reader, back), _copy(there, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()
