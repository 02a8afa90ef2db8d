"""`python -m server`: the gateway, and with --with-triton a local Triton beside it.

In: flags and `MIXER_` variables. Out: an HTTP server until SIGINT or SIGTERM; then it stops
accepting, finishes what it has begun and exits with 0. Exits with 1 when it cannot serve, 2 when a
setting is wrong. `python -m server classify`, `similar`
and `key` are programs of their own.
"""

import asyncio
import ipaddress
import logging
import os
import sys

# gRPC would log a warning whenever a local Triton is started; that child calls no gRPC of ours.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from contracts.environment import environment

with environment("serve", "server"):
    from server import client, similar
    from server.local_triton.repository import check_repository
    from server.local_triton.supervisor import LocalTriton, LocalTritonError
    from server.observability import logs
    from server.process import gateway
    from server.process.event_loop import new_event_loop, stop_on_signals
    from server.process.listeners import ListenError, Listeners, listening, url_of
    from server.process.tls import Certificate, CertificateError
    from server.process.uvicorn_parts import UnsupportedUvicornError, http_protocol
    from server.process.workers import Workers, WorkersError, quiet
    from server.settings import Settings, SettingsError, read
    from server.web import api_keys as keys
    from server.web import default_model

logger = logging.getLogger("server")

COMMANDS = {
    "classify": client.main,
    "similar": similar.main,
    "key": keys.main,
    "default": default_model.main,
}


def main() -> int:
    """Run until told to stop; the exit status."""
    if sys.argv[1:2] == ["serve"]:  # as SageMaker starts a container
        del sys.argv[1]
    command = COMMANDS.get(sys.argv[1]) if len(sys.argv) > 1 else None
    if command is not None:
        return command(sys.argv[2:])
    try:
        settings = read(sys.argv[1:])
        if settings.keys_file is not None:
            keys.read(settings.keys_file)
        if settings.tls_cert is not None and settings.tls_key is not None:
            Certificate(settings.tls_cert, settings.tls_key)
    except (SettingsError, keys.KeyFileError, CertificateError) as error:
        print(f"python -m server: {error}", file=sys.stderr)
        return 2
    logs.set_up(settings.log_level, settings.log_format)
    quiet()
    try:
        if settings.engine == "onnxruntime":
            check_repository(settings.repository)
        http_protocol()  # told here, not by each of several workers
        with (
            listening(settings) as listeners,
            asyncio.Runner(loop_factory=new_event_loop) as runner,
        ):
            return runner.run(serve(settings, listeners))
    except (LocalTritonError, UnsupportedUvicornError, ListenError) as error:
        print(f"python -m server: {error}", file=sys.stderr)
        return 1


def warn_if_open(settings: Settings, host: str, port: int) -> None:
    """Say in the log that everybody who reaches the server may use it, where that is so."""
    if settings.keys_file is None and not ipaddress.ip_address(host).is_loopback:
        logger.warning(
            "anybody who reaches %s port %d may use this server, since it needs no API key; "
            "--keys-file asks for one",
            host,
            port,
        )


async def serve(settings: Settings, listeners: Listeners) -> int:
    """Serve on `listeners` until a signal; the exit status."""
    if settings.allow_changed_models:
        os.environ["MIXER_ALLOW_CHANGED_MODELS"] = "1"  # as the backend reads it
    triton = LocalTriton(settings.repository) if settings.with_triton else None
    triton_url = triton.grpc_url if triton else settings.triton_url
    server = (
        Workers(settings, triton_url)
        if settings.workers > 1
        else gateway.make(settings, triton_url)
    )
    stop_on_signals(server.stop)
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
