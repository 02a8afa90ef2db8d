"""The common part of the launchers of a supervised Triton: flags, signals, the status over HTTP.

In: a command line. Out: a Triton that is kept alive until SIGINT or SIGTERM. Imports only the
standard library, since NVIDIA's image has this module too.
"""

import argparse
import asyncio
import contextlib
import logging
import signal
from pathlib import Path

from server.local_triton.command_line import LOOPBACK
from server.local_triton.launch import LocalTritonError
from server.local_triton.restarts import Supervisor
from server.local_triton.status import READY_WHEN, Status

LEVELS = ("debug", "info", "warning", "error")


def path(text: str) -> Path:
    """A path in which `~` is a home folder."""
    return Path(text).expanduser()


def add_common(parser: argparse.ArgumentParser, *, address: str = LOOPBACK) -> None:
    """The flags of every launcher; `address` is the default of --address."""
    parser.add_argument("--repository", type=path, required=True, help="the model repository")
    parser.add_argument(
        "--address",
        default=address,
        help="where gRPC, metrics and status listen; other than 127.0.0.1 only on a network that "
        "nobody but the gateway can reach",
    )
    parser.add_argument("--grpc-port", type=int, default=8001)
    parser.add_argument("--metrics-port", type=int, default=8002)
    parser.add_argument("--http-port", type=int, default=8000, help="on 127.0.0.1 alone")
    parser.add_argument(
        "--status-port",
        type=int,
        help="where /livez, /readyz and /metrics of the supervisor are; none without",
    )
    parser.add_argument(
        "--ready-when",
        choices=READY_WHEN,
        default=READY_WHEN[0],
        help="which models must answer their probe before /readyz is 200 for the first time; "
        "afterwards any is enough",
    )
    parser.add_argument("--log-level", choices=LEVELS, default="info")


async def serve(options: argparse.Namespace, supervisor: Supervisor, status: Status) -> None:
    """Supervise until a signal. Raises LocalTritonError."""
    loop = asyncio.get_running_loop()
    stopping: list[asyncio.Task[None]] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(
            number, lambda: stopping.append(asyncio.create_task(supervisor.stop()))
        )
    telling = asyncio.create_task(_tell(options, status))
    try:
        running = asyncio.create_task(supervisor.run())
        await asyncio.wait((running, telling), return_when=asyncio.FIRST_COMPLETED)
        if telling.done():
            await supervisor.stop()
            telling.result()
        await running
    finally:
        telling.cancel()
        with contextlib.suppress(asyncio.CancelledError, LocalTritonError):
            await telling
    await asyncio.gather(*stopping)


async def _tell(options: argparse.Namespace, status: Status) -> None:
    if options.status_port is None:
        await asyncio.Event().wait()
    try:
        await status.run(options.address, options.status_port)
    except OSError as error:
        where = f"{options.address}:{options.status_port}"
        raise LocalTritonError(f"cannot listen on {where}: {error.strerror or error}") from error


def fail(logger: logging.Logger, error: LocalTritonError) -> int:
    """Log why the program ends; returns the exit status."""
    logger.error("%s", error)
    return 1
