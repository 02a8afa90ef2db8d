"""`python -m server`: the gateway, and with --with-triton a local Triton beside it.

In: flags and `MIXER_` variables. Out: an HTTP server until SIGINT or SIGTERM; then it stops
accepting, finishes what it has begun and exits with 0. Exits with 1 when it cannot serve, 2 when a
setting is wrong.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import warnings
from collections.abc import Iterator

import uvicorn
import uvloop

# gRPC would log a warning whenever a local Triton is started; that child calls no gRPC of ours.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from server.app import create_app
from server.local_triton import LocalTriton, LocalTritonError
from server.settings import Settings, SettingsError, read

logger = logging.getLogger("server")


class Gateway(uvicorn.Server):
    """uvicorn, with the signals left to `serve`: it would end the process by the signal itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def main() -> int:
    """Run until told to stop; the exit status."""
    try:
        settings = read(sys.argv[1:])
    except SettingsError as error:
        print(f"python -m server: {error}", file=sys.stderr)
        return 2
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # It would tell again, in more lines, that the gateway starts and stops.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    # Hostile pictures make Pillow warn thousands of times; what matters becomes a 4xx.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        with (
            _listen(settings.host, settings.port) as listener,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            return runner.run(serve(settings, listener))
    except OSError as error:
        print(
            f"python -m server: cannot listen on {settings.host} port {settings.port}: "
            f"{error.strerror or error}; choose others with --host and --port",
            file=sys.stderr,
        )
        return 1


async def serve(settings: Settings, listener: socket.socket) -> int:
    """Serve on `listener` until a signal; the exit status."""
    triton = LocalTriton(settings.repository) if settings.with_triton else None
    gateway = Gateway(
        uvicorn.Config(
            create_app(settings, triton.grpc_url if triton else settings.triton_url),
            log_config=None,
            access_log=settings.access_log,
            server_header=False,
            # Longer than any request may take, so that none is cut off.
            timeout_graceful_shutdown=int(settings.request_timeout) + 5,
        )
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _stop, gateway)
    host, port = listener.getsockname()[:2]
    logger.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
    supervisor = asyncio.create_task(triton.run()) if triton else None
    if supervisor is not None:
        supervisor.add_done_callback(lambda _task: _stop(gateway))
    try:
        await gateway.serve(sockets=[listener])
    finally:
        if triton is not None and supervisor is not None:
            await triton.stop()
            supervisor.cancel()
            await asyncio.wait([supervisor])
    if supervisor is not None and not supervisor.cancelled():
        error = supervisor.exception()
        if isinstance(error, LocalTritonError):
            logger.error("%s", error)
            return 1
        if error is not None:
            raise error
    return 0


def _stop(gateway: Gateway) -> None:
    gateway.should_exit = True


def _listen(host: str, port: int) -> socket.socket:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    return socket.create_server((host, port), family=family, backlog=2048)


if __name__ == "__main__":
    sys.exit(main())
