"""One gateway process: uvicorn on a socket that is already listening, until told to stop.

In: `Settings`, a listening socket, Triton's address. Out: answers. Told to stop, it stops
accepting, finishes what it has begun and returns.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from server.app import create_app
from server.settings import Settings


class Gateway(uvicorn.Server):
    """uvicorn, with the signals left to `serve`: it would end the process by the signal itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop(self) -> None:
        """Finish what has begun, then let `serve_on` return."""
        self.should_exit = True

    async def serve_on(self, listener: socket.socket) -> None:
        """Serve until `stop`."""
        await self.serve(sockets=[listener])


def make(settings: Settings, triton_url: str) -> Gateway:
    """A gateway; await its `serve_on`."""
    return Gateway(
        uvicorn.Config(
            create_app(settings, triton_url),
            log_config=None,
            access_log=False,  # server/telemetry.py has what uvicorn cannot know
            server_header=False,
            # Longer than any request may take, so that none is cut off.
            timeout_graceful_shutdown=int(settings.request_timeout) + 5,
        )
    )


def stop_on_signals(stop: Callable[[], None]) -> None:
    """Call `stop` at SIGINT or SIGTERM."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
