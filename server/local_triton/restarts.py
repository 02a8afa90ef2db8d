"""A tritonserver that is started again whenever it dies, has lost a stub, or hangs.

In: a `Program` and where it shall listen. Out: an address that answers while `run` does, and the
state of tritonserver: what is wrong with which model, how often it was started again and why. While
it is away, calls to its address fail as UNAVAILABLE. Imports only the standard library, since
NVIDIA's image has this module too.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections import Counter, deque
from collections.abc import Callable
from enum import Enum

from server.host.crash_loop import CrashLoop
from server.local_triton.command_line import LOOPBACK, Listen
from server.local_triton.launch import CrashError, LocalTritonError, Program
from server.local_triton.process import HangError, TritonProcess, tritonserver

log = logging.getLogger(__name__)

QUICK_TRITON_DEATH_S = 30.0  # after the start, in which it loads every model
DELAY_S = 0.1  # between a death and the next start; doubled by each quick death before
# A model that hangs again and again must not interrupt the other models each time: between two
# restarts because of that model at least HANG_PAUSE_S pass, doubled each time up to
# HANG_PAUSE_MOST_S.
HANG_PAUSE_S, HANG_PAUSE_MOST_S = 60.0, 3600.0
# The words of a model's process that ends because it stood still: no fault of Triton's.
STOOD_STILL = "a model's process stood still"


SILENT_S = 4.0  # a model that is silent for longer is not ready
_told: deque[int] = deque(maxlen=1000)  # the ports that `free_port` gave last


class Reason(Enum):
    """Why tritonserver was started again."""

    DIED = "died"
    HUNG = "hung"


class Supervisor:
    """One supervised tritonserver.

    Await `run` in a thread that lives as long as the process: the kernel kills tritonserver when
    that thread dies, and so even a launcher that is killed with SIGKILL leaves nothing running.
    """

    def __init__(self, program: Callable[[], Program], listen: Listen) -> None:
        """Nothing runs yet; `program` raises LocalTritonError if no tritonserver can be run."""
        self.grpc_url = f"{LOOPBACK}:{listen.grpc_port}"
        self.metrics_url = f"http://{LOOPBACK}:{listen.metrics_port}/metrics"
        self.pid: int | None = None  # of the tritonserver that takes requests now
        self.serving = asyncio.Event()  # set while there is one
        self.restarts: Counter[Reason] = Counter()
        self._program = program
        self._listen = listen
        self._triton: TritonProcess | None = None
        self._has_served = False
        self._stopped = False
        self._supervisor: asyncio.Task[None] | None = None
        self._hangs: dict[str, tuple[float, float]] = {}  # model: next allowed restart, next pause

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

    def problems(self) -> dict[str, str]:
        """What is wrong with each model, or with Triton itself (""); empty if nothing is."""
        if self._triton is None:
            return {"": "Triton is being started"}
        problems = self._triton.prober.problems()
        for name, seconds in self._triton.hangs.silences().items():
            if seconds > SILENT_S:
                problems[name or ""] = f"has not answered its probe for {seconds:.0f} s"
        return problems

    async def probe(self, model: str) -> str | None:
        """What is wrong with the model's answer to a probe now; None if nothing."""
        if self._triton is None:
            return "is away: Triton is being started"
        return await self._triton.prober.probe(model)

    def restart(self, why: str) -> None:
        """Start tritonserver again, as if it had died."""
        if self._triton is not None:
            log.warning("%s: tritonserver is ended", why)
            self._triton.kill()

    async def load(self, model: str) -> None:
        """Let Triton load a model again, which its flags must allow. Raises LocalTritonError."""
        if self._triton is None:
            raise LocalTritonError("Triton is being started")
        await self._triton.prober.load(model)

    def models(self) -> list[str]:
        """The models that answer their probe as they should."""
        triton = self._triton
        return sorted(triton.prober.models.keys() - self.problems().keys()) if triton else []

    async def _supervise(self) -> None:
        program = self._program()
        for port in (self._listen.grpc_port, self._listen.metrics_port, self._listen.http_port):
            check_free(port)
        crashes = CrashLoop(QUICK_TRITON_DEATH_S)
        crashed_at_start = False
        while True:
            begin = time.monotonic()
            try:
                await self._live(program)
            except LocalTritonError as error:
                if not self._has_served:
                    # A machine that stands still can make Triton abort, and another start helps.
                    if isinstance(error, CrashError) and not crashed_at_start:
                        crashed_at_start = True
                        log.error("%s; starting it once more", error)  # noqa: TRY400  (no trace)
                        continue
                    if program.can_do_without(error):
                        continue
                    raise
                if not self._stood_still():
                    crashes.died(time.monotonic() - begin)
                if crashes.hopeless:
                    raise LocalTritonError(f"{error}; {crashes.deaths} times in a row") from error
                self.restarts[Reason.HUNG if isinstance(error, HangError) else Reason.DIED] += 1
                delay = DELAY_S * 2 ** max(0, crashes.deaths - 1)
                log.error("%s; starting it again in %.1f s", error, delay)  # noqa: TRY400  (no trace)
            finally:
                self.pid = self._triton = None
                self.serving.clear()
            await asyncio.sleep(delay)

    async def _live(self, program: Program) -> None:
        """One life of tritonserver; ends with the LocalTritonError that says why."""
        begin = time.monotonic()
        async with tritonserver(program, self._listen) as triton:
            self._triton, self.pid = triton, triton.pid
            self._has_served = True
            self.serving.set()
            models = ", ".join(sorted(triton.prober.models))
            took = time.monotonic() - begin
            where = f"{self._listen.address}:{self._listen.grpc_port}"
            log.info("Triton serves %s on %s, started in %.1f s", models, where, took)
            await triton.lost(self._may_restart)

    def _stood_still(self) -> bool:
        """Whether a model's process ended for the machine's sake (backends/standstill.py)."""
        errors = () if self._triton is None else self._triton.log.errors
        return any(STOOD_STILL in line for line in errors)

    def _may_restart(self, model: str | None) -> bool:
        """Whether a hang of this model, or for None of Triton itself, should restart Triton."""
        if model is None:
            return True
        now = time.monotonic()
        again, pause = self._hangs.get(model, (0.0, HANG_PAUSE_S))
        if now < again:
            return False
        self._hangs[model] = now + pause, min(2 * pause, HANG_PAUSE_MOST_S)
        return True


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens, another than this process was told before.

    Linux chooses among some thousands, and may choose one again that nobody listens on yet: of the
    three ports of a tritonserver two were the same once in two thousand starts.
    """
    while True:
        with socket.create_server((LOOPBACK, 0)) as listener:
            port: int = listener.getsockname()[1]
        if port not in _told:
            _told.append(port)
            return port


def check_free(port: int) -> None:
    """Refuse a port on which something listens.

    Raises:
        LocalTritonError: something listens on the port, or the port cannot be used.
    """
    try:
        with contextlib.closing(socket.create_server((LOOPBACK, port))):
            pass
    except (OSError, OverflowError) as error:
        raise LocalTritonError(f"Triton cannot listen on {LOOPBACK}:{port}: {error}") from error
