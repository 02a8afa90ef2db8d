"""Several gateway processes on one port: started, replaced when one dies, stopped.

In: `Settings` and listening sockets, which all workers share; the kernel gives each connection to a
worker that waits. Out: `serve_on` returns after `stop`, when all workers have finished. All workers
write their metrics into a temporary folder (server/observability/metrics.py).
"""

import asyncio
import contextlib
import logging
import multiprocessing
import os
import tempfile
import time
import warnings
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from prometheus_client.multiprocess import mark_process_dead

from server.host.crash_loop import CrashLoop
from server.observability import logs, metrics
from server.process import gateway
from server.process.event_loop import new_event_loop, stop_on_signals
from server.process.listeners import Listeners
from server.settings import Settings

logger = logging.getLogger(__name__)

QUICK_WORKER_DEATH_S = 10.0  # after the start, which takes about two seconds
PAUSE_S = 0.5  # before the next start after a quick death
HURRY = b"hurry"  # the message to a worker at the second stop


class WorkersError(RuntimeError):
    """The workers do not stay alive; the message says what was seen."""


class Workers:
    """The workers of one gateway."""

    def __init__(self, settings: Settings, triton_url: str) -> None:
        self._settings = settings
        self._triton_url = triton_url
        # Never fork: gRPC and the threads of this process would not survive it.
        self._context = multiprocessing.get_context("spawn")
        self._stopping = asyncio.Event()
        self._listeners: Listeners | None = None
        self._pipes: set[Connection] = set()  # one to each worker

    def stop(self) -> None:
        """Let every worker finish what it has begun, then `serve_on` returns.

        At the second call, the workers wait no longer for clients to notice.
        """
        if self._stopping.is_set():
            for pipe in self._pipes:
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    pipe.send_bytes(HURRY)
        self._stopping.set()
        if self._listeners is not None:
            # The workers have their own copies of the sockets. If these sockets were open longer
            # than the copies, clients could connect although no process accepts.
            self._listeners.close()

    async def serve_on(self, listeners: Listeners) -> None:
        """Run until `stop`. Raises `WorkersError` when a worker cannot stay alive."""
        self._listeners = listeners
        with tempfile.TemporaryDirectory(prefix="mixer-serving-metrics-") as folder:
            # The workers read it when they import prometheus_client.
            os.environ[metrics.FOLDER_VARIABLE] = folder
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(self._settings.workers):
                        group.create_task(self._keep_one(listeners))
            except* WorkersError as errors:
                raise errors.exceptions[0] from None

    async def _keep_one(self, listeners: Listeners) -> None:
        crashes = CrashLoop(QUICK_WORKER_DEATH_S)
        while not self._stopping.is_set():
            began = time.monotonic()
            theirs, ours = self._context.Pipe(duplex=False)
            process = self._context.Process(
                target=work, args=(self._settings, listeners, self._triton_url, theirs)
            )
            process.start()
            theirs.close()
            self._pipes.add(ours)
            try:
                await self._life(process)
            finally:
                await self._end(process)
                self._pipes.remove(ours)
                ours.close()
            if self._stopping.is_set():
                return
            quick = crashes.died(time.monotonic() - began)
            logger.error("worker %s died (exit code %s)", process.pid, process.exitcode)
            if crashes.hopeless:
                self.stop()
                raise WorkersError(
                    f"a worker died {crashes.deaths} times in a row; the log says why"
                )
            if quick:
                await asyncio.sleep(PAUSE_S)

    async def _life(self, process: SpawnProcess) -> None:
        """Wait until the worker has died, or is to stop."""
        died = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(process.sentinel, died.set)
        waits = [asyncio.create_task(event.wait()) for event in (died, self._stopping)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(process.sentinel)
            for wait in waits:
                wait.cancel()

    async def _end(self, process: SpawnProcess) -> None:
        """Wait until the worker has ended after SIGTERM, or kill it."""
        process.terminate()
        grace = self._settings.grace + 5
        await asyncio.to_thread(process.join, grace)
        if process.exitcode is None:
            logger.error("worker %s does not end and is killed", process.pid)
            process.kill()
            await asyncio.to_thread(process.join)
        if process.pid is not None:
            mark_process_dead(process.pid)  # type: ignore[no-untyped-call] # it has no types


def work(settings: Settings, listeners: Listeners, triton_url: str, parent: Connection) -> None:
    """The work of a worker process: serve until a signal, an order to hurry, or the parent's end.

    Signals only begin the drain, however many come: a signal to the whole process group (Ctrl-C in
    a terminal, systemd's stop) arrives here in addition to the one that the parent then sends. The
    order to wait no longer for clients to notice comes through `parent`.
    """
    logs.set_up(settings.log_level, settings.log_format)
    quiet()

    async def run() -> None:
        this = gateway.make(settings, triton_url)
        loop = asyncio.get_running_loop()
        stopping = False

        def stop() -> None:
            nonlocal stopping
            if not stopping:
                stopping = True
                this.stop()

        def hurry() -> None:
            loop.remove_reader(parent.fileno())  # without a parent it stays readable
            stop()
            # The pipe ends when the parent dies, however it dies: then nothing supervises this
            # worker.
            with contextlib.suppress(EOFError):
                parent.recv_bytes()
                this.stop()

        loop.add_reader(parent.fileno(), hurry)
        stop_on_signals(stop)
        await this.serve_on(listeners)

    # Ctrl-C before the signal handlers are there.
    with (
        contextlib.suppress(KeyboardInterrupt),
        asyncio.Runner(loop_factory=new_event_loop) as runner,
    ):
        runner.run(run())


def quiet() -> None:
    """Silence needless messages of libraries."""
    # uvicorn would log again, in more lines, that the gateway starts and stops.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    # Hostile images make Pillow warn thousands of times; what matters becomes a 4xx.
    warnings.filterwarnings("ignore", module=r"PIL\.")
