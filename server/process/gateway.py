"""One gateway process: uvicorn on a socket that is already listening, until told to stop.

In: `Settings`, a listening socket, Triton's address. Out: answers. Told to stop, it stops
accepting, finishes what it has begun and returns.
"""

import asyncio
import contextlib
import gc
import math
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from server.process import memory, open_files
from server.process.listeners import Listeners
from server.process.tls import Certificate
from server.process.uvicorn_parts import http_protocol
from server.settings import Settings
from server.web.app import create_app
from server.web.connection_limits import ConnectionLimits
from server.web.connections import KEEP_ALIVE_SECONDS, ClientConnection
from server.web.edge import Edge
from server.web.state import state_of

# New objects between two looks for garbage; Python's default of 700 are made by a few requests.
GARBAGE_THRESHOLD = 10_000


class Gateway(uvicorn.Server):
    """uvicorn, with the signals left to `serve`: it would end the process by the signal itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        """Raises `UnsupportedUvicornError`, `CertificateError`."""
        protocol = http_protocol()
        self.connections = limits = ConnectionLimits(
            settings.max_connections, requests=settings.requests_per_connection
        )

        class Connection(ClientConnection):
            """What uvicorn makes for each client: a way to a protocol of its own."""

            def __init__(self, app_state: dict[str, object], **others: object) -> None:
                super().__init__(
                    lambda state: protocol(app_state=state, **others),
                    app_state,
                    limits,
                    settings.read_timeout,
                    log_refusals=settings.access_log,
                )

        super().__init__(
            uvicorn.Config(
                Edge(app),
                http=Connection,
                ws="none",
                log_config=None,
                access_log=False,  # server/observability/telemetry.py has what uvicorn cannot know
                server_header=False,
                # It would believe any client on this machine about its address.
                proxy_headers=False,
                # Of no effect: server/web/connections.py closes an idle connection before.
                timeout_keep_alive=math.ceil(KEEP_ALIVE_SECONDS + settings.read_timeout + 5),
                # Longer than any request may take, so that none is cut off.
                timeout_graceful_shutdown=math.ceil(settings.grace - settings.drain_seconds),
            )
        )
        self._certificate: Certificate | None = None
        if settings.tls_cert is not None and settings.tls_key is not None:
            self._certificate = Certificate(settings.tls_cert, settings.tls_key)
        self._state = state_of(app)
        self._drain_seconds = settings.drain_seconds

    def stop(self) -> None:
        """Be not ready at once, serve on while clients notice, finish, let `serve_on` return.

        Told a second time, it waits for no more clients to notice.
        """
        if self._state.draining or not self._drain_seconds:
            self.should_exit = True
        else:
            asyncio.get_running_loop().call_later(self._drain_seconds, self._stop_accepting)
        self._state.draining = True

    def _stop_accepting(self) -> None:
        self.should_exit = True

    async def serve_on(self, listeners: Listeners) -> None:
        """Serve until `stop`."""
        open_files.allow(self.connections.most)
        self._state.ports.update(listeners.ports())
        # What has been made so far stays to the end: looking through it again and again for
        # garbage took from a tenth to two fifths of the event loop's time under load.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GARBAGE_THRESHOLD)
        memory.keep()
        beside = [asyncio.create_task(memory.give_back())]
        if self._certificate is not None:
            self.config.load()
            self.config.ssl = self._certificate.context
            beside.append(asyncio.create_task(self._certificate.watch()))
        try:
            await self.serve(sockets=listeners.all())
        finally:
            for task in beside:
                task.cancel()


def make(settings: Settings, triton_url: str) -> Gateway:
    """A gateway; await its `serve_on`."""
    return Gateway(create_app(settings, triton_url), settings)
