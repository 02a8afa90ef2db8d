"""One tritonserver process of the wheel, from its start to the removal of all that it leaves.

In: an installation, a model repository, ports. Out: an object that says when tritonserver takes
requests and when it has died, or has lost one of its stubs: the processes, one per model instance,
in which the Python backend runs. When its context is left nothing remains of it: no process, no
shared memory, no temporary folder.
"""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from server.local_triton.command_line import Listen, command_line
from server.local_triton.installation import (
    Installation,
    LocalTritonError,
    make_backends,
    own_flags,
)
from server.local_triton.log import TritonLog
from server.local_triton.stubs import children

GUARD = Path(__file__).resolve().parent / "guard.py"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  (where Triton's Python backend puts its regions)
START_S = 600.0  # large models load for minutes; a start that takes longer hangs
EXIT_TIMEOUT_S = 5  # in which requests under way end
STOP_S = 10.0  # more than that


class TritonProcess:
    """A tritonserver that has been started; made by `tritonserver`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.pid = process.pid
        self.log = TritonLog()
        self._process = process
        assert process.stdout is not None  # noqa: S101  (it is a pipe; said for the type checker)
        self._reader = asyncio.create_task(self.log.read(process.stdout))

    async def started(self) -> None:
        """Wait until it takes requests.

        Raises:
            LocalTritonError: it ended instead, hangs, or could load no model.
        """
        try:
            async with asyncio.timeout(START_S):
                died = await self._died_before(self.log.started)
        except TimeoutError:
            raise LocalTritonError(f"Triton did not start within {START_S:.0f} s") from None
        if died:
            raise LocalTritonError(self._because(f"Triton ended at its start ({self._status()})"))
        if not self.log.models:
            raise LocalTritonError(self._because("Triton could load no model"))

    async def lost(self) -> None:
        """Wait until it dies, or one of its stubs does.

        Raises:
            LocalTritonError: always; it says which.
        """
        stub_died = asyncio.Event()
        with set_when_one_dies(stub_died, children(self.pid)):
            if await self._died_before(stub_died):
                raise LocalTritonError(self._because(f"Triton died ({self._status()})"))
        # Its answers are of no use any more, and its orderly end would wait for the lost stub.
        self.kill()
        raise LocalTritonError("Triton lost a model's process")

    async def terminate(self) -> None:
        """Let it finish the requests that it has, and end."""
        with contextlib.suppress(ProcessLookupError, TimeoutError):
            self._process.terminate()
            await asyncio.wait_for(self._process.wait(), STOP_S)

    def kill(self) -> None:
        """Kill what is left of it and of its stubs."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()  # it may not have come to make its group
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    async def end(self) -> None:
        """Wait until it and its stubs have gone."""
        await self._process.wait()
        await self._reader

    async def _died_before(self, event: asyncio.Event) -> bool:
        """Wait until tritonserver dies or `event` is set; whether it died first."""
        died = asyncio.Event()
        # Not `wait` of the process: that ends only when nobody holds its output any more, and a
        # stub may wait for ever for a lock that tritonserver held when it was killed.
        with set_when_one_dies(died, [self.pid]):
            tasks = (asyncio.create_task(died.wait()), asyncio.create_task(event.wait()))
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
        if event.is_set():
            return False
        self.kill()
        await self.end()  # its whole output has been read
        return True

    def _status(self) -> str:
        code = self._process.returncode or 0
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"

    def _because(self, what: str) -> str:
        return f"{what}: {'; '.join(self.log.errors)}" if self.log.errors else what


@contextlib.asynccontextmanager
async def tritonserver(
    found: Installation, repository: Path, listen: Listen
) -> AsyncIterator[TritonProcess]:
    """Start tritonserver and enter when it takes requests; at the end remove all that is left.

    Raises:
        LocalTritonError: it did not start; the message says why.
    """
    prefix = f"mixer_serving_{os.getpid()}_{listen.grpc_port}_"
    folder = tempfile.TemporaryDirectory(prefix="mixer-serving-triton-")
    try:
        make_backends(found, Path(folder.name))
        process = await asyncio.create_subprocess_exec(
            # -I -S: none of the caller's Python settings, and no site-packages to look through.
            # The guard makes a process group of it, so that Ctrl-C does not reach Triton: the
            # launcher ends it in order.
            *(sys.executable, "-I", "-S", str(GUARD), str(os.getpid())),
            str(SHARED_MEMORY / prefix),
            *command_line(
                found.binary,
                repository,
                listen,
                exit_timeout_s=EXIT_TIMEOUT_S,
                more=own_flags(Path(folder.name), prefix),
            ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=found.variables(),
            cwd="/",  # the stubs' Python searches it for modules
        )
        triton = TritonProcess(process)
        try:
            await triton.started()
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
