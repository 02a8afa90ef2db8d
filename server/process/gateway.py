"""One gateway process: uvicorn on a socket that is already listening, until told to stop.

In: `Settings`, a listening socket, Triton's address. Out: answers. When told to stop, the process
accepts no more connections, finishes the requests that it has begun and returns.
"""

import asyncio
import contextlib
import functools
import gc
import logging
import math
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from server.problems import Problem
from server.process import memory, open_files
from server.process.listeners import Listeners, url_of
from server.process.tls import Certificate
from server.process.uvicorn_parts import http_protocol
from server.settings import Settings
from server.web.app import create_app
from server.web.connection_limits import ConnectionLimits
from server.web.connections import KEEP_ALIVE_SECONDS, ClientConnection
from server.web.edge import Edge
from server.web.state import state_of

logger = logging.getLogger(__name__)

# New objects between two garbage collections; a few requests make Python's default of 700.
GARBAGE_THRESHOLD = 10_000
READY_LOOK_SECONDS = 0.2  # between two looks whether the gateway is ready for the first time
# For a handshake of TLS, which takes two round trips and some kilobytes.
HANDSHAKE_SECONDS = 10.0


class Gateway(uvicorn.Server):
    """uvicorn without its handling of signals, which would end the process by the signal itself."""

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
            """The protocol that uvicorn makes for each client; it wraps uvicorn's own protocol."""

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
                access_log=False,  # server/observability/telemetry.py logs more than uvicorn knows
                server_header=False,
                # Uvicorn would trust any client on this machine about the client's address.
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
        """Drain: be not ready at once, serve while clients notice, finish, let `serve_on` return.

        At the second call, wait no longer for clients to notice.
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
        # Objects made so far stay to the end: searching them for garbage again and again took from
        # a tenth to two fifths of the event loop's time under load.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GARBAGE_THRESHOLD)
        memory.keep()
        scheme = "http" if self._certificate is None else "https"
        beside = [
            asyncio.create_task(memory.give_back()),
            asyncio.create_task(self._tell_when_ready(url_of(listeners.main, scheme))),
        ]
        if self._certificate is not None:
            self.config.load()
            self.config.ssl = self._certificate.context
            loop = asyncio.get_running_loop()
            # uvicorn has no setting for it, and asyncio's 60 s let six times as many connections
            # wait that nothing counts yet.
            loop.create_server = functools.partial(  # type: ignore[method-assign]
                loop.create_server, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
            beside.append(asyncio.create_task(self._certificate.watch()))
        try:
            await self.serve(sockets=listeners.all())
        finally:
            for task in beside:
                task.cancel()

    async def _tell_when_ready(self, url: str) -> None:
        """Log once that requests are answered, as soon as they are."""
        while True:
            await asyncio.sleep(READY_LOOK_SECONDS)
            if not self.started:
                continue  # the engine is made while the app starts
            with contextlib.suppress(Problem):
                model = await self._state.check_ready()
                logger.info("ready: %s answers at %s", model.name, url)
                return


def make(settings: Settings, triton_url: str) -> Gateway:
    """A gateway; await its `serve_on`."""
    return Gateway(create_app(settings, triton_url), settings)
