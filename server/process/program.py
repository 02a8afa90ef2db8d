"""The gateway, and with --with-triton a local Triton beside it, from start to end.

In: the settings. Out: an HTTP server until SIGINT or SIGTERM; then it stops accepting, finishes
what it has begun, and the exit status is 0. It is 1 when it cannot serve, 2 when a file that a
setting names is wrong.
"""

import asyncio
import ipaddress
import logging
import os
import sys

from server.local_triton.repository import check_repository
from server.local_triton.supervisor import LocalTriton, LocalTritonError
from server.observability import logs
from server.process import gateway
from server.process.event_loop import new_event_loop, stop_on_signals
from server.process.listeners import ListenError, Listeners, listening, url_of
from server.process.tls import Certificate, CertificateError
from server.process.uvicorn_parts import UnsupportedUvicornError, http_protocol
from server.process.workers import Workers, WorkersError, quiet
from server.settings import Settings
from server.web import api_keys as keys

logger = logging.getLogger("server")


def run(settings: Settings) -> int:
    """Serve until told to stop; returns the exit status."""
    try:
        if settings.keys_file is not None:
            keys.read(settings.keys_file)
        if settings.tls_cert is not None and settings.tls_key is not None:
            Certificate(settings.tls_cert, settings.tls_key)
    except (keys.KeyFileError, CertificateError) as error:
        print(f"python -m server: {error}", file=sys.stderr)
        return 2
    logs.set_up(settings.log_level, settings.log_format)
    quiet()
    try:
        if settings.engine == "onnxruntime":
            check_repository(settings.repository)
        http_protocol()  # a failure is told here, not by each worker
        with (
            listening(settings) as listeners,
            asyncio.Runner(loop_factory=new_event_loop) as runner,
        ):
            return runner.run(serve(settings, listeners))
    except (LocalTritonError, UnsupportedUvicornError, ListenError) as error:
        print(f"python -m server: {error}", file=sys.stderr)
        return 1


def warn_if_open(settings: Settings, host: str, port: int) -> None:
    """Warn in the log if everybody who reaches the server may use it."""
    if settings.keys_file is None and not ipaddress.ip_address(host).is_loopback:
        logger.warning(
            "anybody who reaches %s port %d may use this server, since it needs no API key; "
            "--keys-file asks for one",
            host,
            port,
        )


async def serve(settings: Settings, listeners: Listeners) -> int:
    """Serve on `listeners` until a signal; returns the exit status."""
    if settings.allow_changed_models:
        os.environ["MIXER_ALLOW_CHANGED_MODELS"] = "1"  # as the backend reads it
    triton = LocalTriton(settings.repository) if settings.with_triton else None
    triton_url = triton.grpc_url if triton else settings.triton_url
    server = (
        Workers(settings, triton_url)
        if settings.workers > 1
        else gateway.make(settings, triton_url)
    )

    def stop() -> None:
        logger.info("stopping: requests under way are finished")
        server.stop()

    stop_on_signals(stop)
    host, port = listeners.main.getsockname()[:2]
    scheme = "http" if settings.tls_cert is None else "https"
    logger.info("listening on %s", url_of(listeners.main, scheme))
    for name, listener in listeners.others.items():
        logger.info("--%s: /%s is on %s", name, name, url_of(listener, scheme))
    warn_if_open(settings, host, port)
    supervisor = asyncio.create_task(triton.run()) if triton else None
    if supervisor is not None:
        supervisor.add_done_callback(lambda _task: server.stop())
    try:
        await server.serve_on(listeners)
    except WorkersError as error:
        logger.error("%s", error)  # noqa: TRY400 - a trace would say nothing more
        return 1
    finally:
        if triton is not None and supervisor is not None:
            await triton.stop()
            supervisor.cancel()
            await asyncio.wait([supervisor])
    if supervisor is not None and not supervisor.cancelled():
        failure = supervisor.exception()
        if isinstance(failure, LocalTritonError):
            logger.error("%s", failure)
            return 1
        if failure is not None:
            raise failure
    logger.info("stopped")
    return 0
