"""One gateway process: uvicorn on a socket that is already listening, until told to stop.

In: `Settings`, a listening socket, Triton's address. Out: answers. Told to stop, it stops
accepting, finishes what it has begun and returns.
"""

import asyncio
import contextlib
import gc
import math
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from server.process import memory
from server.settings import Settings
from server.web.app import create_app
from server.web.connections import Connection
from server.web.fast_path import Shortcut
from server.web.load_shedding import Door

# New objects between two looks for garbage; Python's default of 700 are made by a few requests.
GARBAGE_THRESHOLD = 10_000


class Gateway(uvicorn.Server):
    """uvicorn, with the signals left to `serve`: it would end the process by the signal itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        class Limited(Connection):
            read_timeout = settings.read_timeout
            log_refusals = settings.access_log
            refusal = staticmethod(Door(app).refusal)

        super().__init__(
            uvicorn.Config(
                Shortcut(app),
                http=Limited,
                ws="none",
                log_config=None,
                access_log=False,  # server/observability/telemetry.py has what uvicorn cannot know
                server_header=False,
                # Longer than load balancers keep an idle connection (60 s is common), so that it
                # is never closed while one of them sends a request on it.
                timeout_keep_alive=75,
                # Longer than any request may take, so that none is cut off.
                timeout_graceful_shutdown=math.ceil(settings.grace - settings.drain_seconds),
            )
        )
        self._app = app
        self._drain_seconds = settings.drain_seconds

    def stop(self) -> None:
        """Be not ready at once, serve on while clients notice, finish, let `serve_on` return.

        Told a second time, it waits for no more clients to notice.
        """
        if self._app.state.draining or not self._drain_seconds:
            self.should_exit = True
        else:
            asyncio.get_running_loop().call_later(self._drain_seconds, self._stop_accepting)
        self._app.state.draining = True

    def _stop_accepting(self) -> None:
        self.should_exit = True

    async def serve_on(self, listener: socket.socket) -> None:
        """Serve until `stop`."""
        # What has been made so far stays to the end: looking through it again and again for
        # garbage took from a tenth to two fifths of the event loop's time under load.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GARBAGE_THRESHOLD)
        giving_back = asyncio.create_task(memory.give_back())
        try:
            await self.serve(sockets=[listener])
        finally:
            giving_back.cancel()


def make(settings: Settings, triton_url: str) -> Gateway:
    """A gateway; await its `serve_on`."""
    return Gateway(create_app(settings, triton_url), settings)
