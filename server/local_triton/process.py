"""One tritonserver process, from its start to the removal of all that it leaves.

In: a `Program`, where it shall listen. Out: an object that says when tritonserver takes requests,
and when it has died, has lost one of its stubs (the processes, one per model instance, in which the
wheel's Python backend runs), or hangs. After its context nothing of it remains: no process, no
shared memory, no temporary folder. Imports only the standard library.
"""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

from server.local_triton.command_line import Key, Listen, command_line
from server.local_triton.hang import HangWatch
from server.local_triton.launch import CrashError, LocalTritonError, NoModelError, Program
from server.local_triton.log import TritonLog
from server.local_triton.probe import Prober

GUARD = Path(__file__).resolve().parent / "guard.py"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  (where Triton's Python backend puts its regions)
START_S = 600.0  # large models load for minutes; a start that takes longer hangs
EXIT_TIMEOUT_S = 5  # for requests under way to end
STOP_S = 10.0  # longer than EXIT_TIMEOUT_S
JUDGE_S = 0.5  # between two checks whether it hangs


class HangError(LocalTritonError):
    """Triton, or a model of it, does not answer and does not work; `model` is None for Triton."""

    def __init__(self, message: str, model: str | None) -> None:
        super().__init__(message)
        self.model = model


class TritonProcess:
    """A tritonserver that has been started; made by `tritonserver`."""

    def __init__(
        self, process: asyncio.subprocess.Process, program: Program, prober: Prober
    ) -> None:
        self.pid = process.pid
        self.log = TritonLog()
        self.prober = prober
        self.hangs = HangWatch(prober, lambda name: program.cpu_seconds(process.pid, name))
        self._process = process
        self._program = program
        assert process.stdout is not None  # noqa: S101  (it is a pipe; said for the type checker)
        self._reader = asyncio.create_task(self.log.read(process.stdout))

    async def started(self) -> None:
        """Wait until it takes requests.

        Raises:
            LocalTritonError: it ended instead (`CrashError`: by a signal), hangs, or could load no
                model.
        """
        try:
            async with asyncio.timeout(START_S):
                died = await self._died_before(self.prober.started())
        except TimeoutError:
            raise LocalTritonError(f"Triton did not start within {START_S:.0f} s") from None
        if died:
            # A program that cannot become tritonserver does not log in its form.
            lines = self.log.errors or self.log.unformed
            text = f"Triton ended at its start ({self._status()})"
            kind = CrashError if (self._process.returncode or 0) < 0 else LocalTritonError
            raise kind(f"{text}: {'; '.join(lines)}" if lines else text)
        if not self.prober.models:
            text = self._because("Triton could load no model")
            raise NoModelError(text, sorted(self.prober.not_loaded))

    async def lost(self, matters: Callable[[str | None], bool]) -> None:
        """Probe it, and wait until it dies, one of its stubs does, or it hangs.

        `matters` decides whether a hang of a model, or for None of Triton itself, ends the wait.

        Raises:
            LocalTritonError: always; it says which.
        """
        stub_died = asyncio.Event()
        probing = asyncio.create_task(self.prober.run())
        hanging = asyncio.create_task(self._hangs(matters))
        tasks = [asyncio.create_task(stub_died.wait()), probing, hanging]
        try:
            with set_when_one_dies(stub_died, self._program.helpers(self.pid)):
                if await self._died_before(_first(tasks)):
                    raise LocalTritonError(self._because(f"Triton died ({self._status()})"))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        # Its answers are of no use any more, and its orderly end would wait for the lost stub.
        self.kill()
        if stub_died.is_set():
            raise LocalTritonError("Triton lost a model's process")
        if not hanging.cancelled() and hanging.exception() is None:
            model, sentence = hanging.result()
            raise HangError(f"{sentence}: it hangs", model)
        probing.result()  # raises an unexpected error of the probe

    async def _hangs(self, matters: Callable[[str | None], bool]) -> tuple[str | None, str]:
        while True:
            for name, sentence in self.hangs.judge(time.monotonic()):
                if matters(name):
                    return name, sentence
            await asyncio.sleep(JUDGE_S)

    async def terminate(self) -> None:
        """Let it finish the requests that it has, and end."""
        with contextlib.suppress(ProcessLookupError, TimeoutError):
            self._process.terminate()
            await asyncio.wait_for(self._process.wait(), STOP_S)

    def kill(self) -> None:
        """Kill what is left of it and of its stubs."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()  # it may not have made its group yet
        self._kill_group()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    async def end(self) -> None:
        """Wait until it and its stubs have gone."""
        await self._process.wait()
        await self._reader

    async def _died_before(self, other: Coroutine[Any, Any, object]) -> bool:
        """Wait until tritonserver dies or `other` is done; returns whether it died first."""
        died = asyncio.Event()
        # `wait` of the process is not used: it ends only when no process has the output open any
        # more, and a stub may wait without end for a lock that tritonserver held when it was
        # killed.
        with set_when_one_dies(died, [self.pid]):
            dead, done = asyncio.create_task(died.wait()), asyncio.create_task(other)
            try:
                await asyncio.wait((dead, done), return_when=asyncio.FIRST_COMPLETED)
            finally:
                dead.cancel()
                done.cancel()
                await asyncio.gather(dead, done, return_exceptions=True)
        if not done.cancelled():
            done.result()
            return False
        # Not by `kill`: asyncio's would take the exit status from the thread that waits for it.
        self._kill_group()
        await self.end()  # its whole output has been read
        return True

    def _status(self) -> str:
        code = self._process.returncode or 0
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"

    def _because(self, what: str) -> str:
        return f"{what}: {'; '.join(self.log.errors)}" if self.log.errors else what


async def _first(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Wait until one of them is done."""
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


@contextlib.asynccontextmanager
async def tritonserver(program: Program, listen: Listen) -> AsyncIterator[TritonProcess]:
    """Start tritonserver and enter when it takes requests; at the end remove all that is left.

    Raises:
        LocalTritonError: it did not start; the message says why.
    """
    prefix = f"mixer_serving_{os.getpid()}_{listen.grpc_port}_"
    folder = tempfile.TemporaryDirectory(prefix="mixer-serving-triton-")
    key = Key()
    try:
        launch = program.prepare(Path(folder.name), prefix)
        process = await asyncio.create_subprocess_exec(
            # -I -S: none of the caller's Python settings, and no site-packages to look through.
            # The guard makes a process group of it, so that Ctrl-C does not reach Triton: the
            # launcher ends it in order.
            *(sys.executable, "-I", "-S", str(GUARD), str(os.getpid())),
            *(str(SHARED_MEMORY / prefix), folder.name),
            *command_line(
                launch.binary,
                launch.repository,
                listen,
                key,
                exit_timeout_s=EXIT_TIMEOUT_S,
                closed_grpc=launch.closed_grpc,
                closed_http=launch.closed_http,
                more=launch.flags,
            ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=launch.environment,
            cwd="/",  # the stubs' Python searches this folder for modules
        )
        triton = TritonProcess(process, program, Prober(listen.http_port, key, launch.repository))
        try:
            await triton.started()
            if not launch.needs_folder:
                folder.cleanup()  # the models are loaded, their programs in memory
            yield triton
        finally:
            try:
                await triton.terminate()
            finally:
                triton.kill()
                remove_shared_memory(prefix)
            await triton.end()
    finally:
        folder.cleanup()


def remove_shared_memory(prefix: str) -> None:
    """Remove what killed stubs have left."""
    for region in SHARED_MEMORY.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


@contextlib.contextmanager
def set_when_one_dies(event: asyncio.Event, pids: list[int]) -> Iterator[None]:
    """Within this context, set `event` when one of the processes dies."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        for pid in pids:
            try:
                handle = os.pidfd_open(pid)
            except ProcessLookupError:
                event.set()
                continue
            stack.callback(os.close, handle)
            loop.add_reader(handle, event.set)
            stack.callback(loop.remove_reader, handle)
        yield
