"""`python -m server.triton_alone`: the supervised Triton without a gateway, for a container.

In: flags. Out: a tritonserver that is started again whenever it dies or has lost a model's process,
until SIGINT or SIGTERM; then exit status 0, or 1 when it cannot be kept alive. Needs Triton's
environment (.venv-triton) and psutil alone, which that environment has too.
"""

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from server.local_triton.supervisor import LocalTriton, LocalTritonError
from server.observability import logs

logger = logging.getLogger("server.triton_alone")


def main() -> int:
    """Run until told to stop; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m server.triton_alone",
        description="Serve a model repository with the wheel's Triton, without a gateway.",
    )
    parser.add_argument("--repository", type=Path, required=True, help="the model repository")
    parser.add_argument(
        "--address",
        default="127.0.0.1",
        help="where gRPC and metrics listen; other than 127.0.0.1 only on a network that nobody "
        "but the gateway can reach",
    )
    parser.add_argument("--grpc-port", type=int, default=8001)
    parser.add_argument("--metrics-port", type=int, default=8002)
    parser.add_argument("--http-port", type=int, default=8000, help="on 127.0.0.1 alone")
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info"
    )
    options = parser.parse_args()
    logs.set_up(options.log_level, "auto")
    triton = LocalTriton(
        options.repository,
        address=options.address,
        grpc_port=options.grpc_port,
        metrics_port=options.metrics_port,
        http_port=options.http_port,
    )
    try:
        asyncio.run(run(triton))
    except LocalTritonError as error:
        logger.error("%s", error)  # noqa: TRY400 - a trace would say nothing more
        return 1
    return 0


async def run(triton: LocalTriton) -> None:
    """Supervise until a signal; raises `LocalTritonError`."""
    loop = asyncio.get_running_loop()
    stopping: list[asyncio.Task[None]] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: stopping.append(asyncio.create_task(triton.stop())))
    await triton.run()
    await asyncio.gather(*stopping)


if __name__ == "__main__":
    sys.exit(main())
