"""The local Triton: the tritonserver of the nvidia-pytriton wheel, kept alive beside the gateway.

In: a model repository and Triton's own Python environment (.venv-triton). Out: a gRPC address on
loopback that answers while `run` does. A tritonserver that dies is started again, and so is one
that has lost a model's process: Triton 2.51 goes on calling itself ready, but never answers for
that model again (fixed in 26.04). While it is away, calls to its address fail as UNAVAILABLE.
"""

import asyncio
import contextlib
import logging
import socket
import time
from pathlib import Path

from server.crash_loop import CrashLoop
from server.local_triton.command_line import LOOPBACK, Listen
from server.local_triton.installation import Installation, LocalTritonError, check_repository, find
from server.local_triton.process import tritonserver

__all__ = ["LocalTriton", "LocalTritonError"]

log = logging.getLogger(__name__)

ENVIRONMENT = Path(__file__).resolve().parents[2] / ".venv-triton"
QUICK_S = 30.0
DELAY_S = 0.1  # between a death and the next start; doubled by each quick one before


class LocalTriton:
    """One supervised tritonserver, on 127.0.0.1 unless told otherwise.

    Await `run` in a thread that lives as long as the process: the kernel kills tritonserver when
    that thread dies, and so even a launcher that is killed with SIGKILL leaves nothing running.
    """

    def __init__(
        self,
        repository: Path,
        *,
        environment: Path = ENVIRONMENT,
        address: str = LOOPBACK,
        grpc_port: int | None = None,
        metrics_port: int | None = None,
        http_port: int | None = None,
    ) -> None:
        """Choose the addresses; nothing runs yet.

        Args:
            repository: The model repository to serve.
            environment: The Python environment that holds the wheel.
            address: Where gRPC and metrics listen. Other than loopback only on a network that
                nobody but the gateway can reach: SECURITY.md.
            grpc_port: Port of Triton's gRPC service; None takes a free one.
            metrics_port: Port of Triton's Prometheus metrics; None takes a free one.
            http_port: Port of Triton's HTTP service, always on 127.0.0.1; None is without.
        """
        self.repository = repository
        self.environment = environment
        self.grpc_port = free_port() if grpc_port is None else grpc_port
        self.metrics_port = free_port() if metrics_port is None else metrics_port
        self.grpc_url = f"{LOOPBACK}:{self.grpc_port}"
        self.metrics_url = f"http://{LOOPBACK}:{self.metrics_port}/metrics"
        self.pid: int | None = None  # of the tritonserver that takes requests now
        self._listen = Listen(self.grpc_port, self.metrics_port, http_port, address)
        self._has_served = False
        self._stopped = False
        self._supervisor: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Start tritonserver and keep it alive until `stop`, or until this call is cancelled.

        Raises:
            LocalTritonError: it cannot be started, or does not stay alive.
        """
        if self._stopped:
            return
        self._supervisor = asyncio.create_task(self._supervise())
        try:
            await self._supervisor
        except asyncio.CancelledError:
            if not self._stopped:
                raise

    async def stop(self) -> None:
        """Let tritonserver finish and end; afterwards nothing of it is left. At most about 10 s."""
        self._stopped = True
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])

    async def _supervise(self) -> None:
        check_repository(self.repository)
        found = find(self.environment)
        check_free(self.grpc_port)
        check_free(self.metrics_port)
        crashes = CrashLoop(QUICK_S)
        while True:
            begin = time.monotonic()
            try:
                await self._live(found)
            except LocalTritonError as error:
                if not self._has_served:
                    raise
                crashes.died(time.monotonic() - begin)
                if crashes.hopeless:
                    raise LocalTritonError(f"{error}; {crashes.deaths} times in a row") from error
                delay = DELAY_S * 2 ** max(0, crashes.deaths - 1)
                log.error("%s; starting it again in %.1f s", error, delay)  # noqa: TRY400  (no trace)
            finally:
                self.pid = None
            await asyncio.sleep(delay)

    async def _live(self, found: Installation) -> None:
        """One life of tritonserver; ends with the LocalTritonError that says why."""
        begin = time.monotonic()
        async with tritonserver(found, self.repository, self._listen) as triton:
            self.pid = triton.pid
            self._has_served = True
            models = ", ".join(sorted(triton.log.models))
            took = time.monotonic() - begin
            where = f"{self._listen.address}:{self.grpc_port}"
            log.info("Triton serves %s on %s, started in %.1f s", models, where, took)
            await triton.lost()


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def check_free(port: int) -> None:
    """Refuse a port on which something listens.

    Raises:
        LocalTritonError: so it is, or the port cannot be had.
    """
    try:
        with contextlib.closing(socket.create_server((LOOPBACK, port))):
            pass
    except (OSError, OverflowError) as error:
        raise LocalTritonError(f"Triton cannot listen on {LOOPBACK}:{port}: {error}") from error
