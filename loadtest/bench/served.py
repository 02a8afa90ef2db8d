"""A gateway with a Triton of its own, started for one measurement and stopped after it.

In: flags of `python -m server`. Out: its address, its process, and the processes below it.
"""

import asyncio
import contextlib
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

START_SECONDS = 120.0


class Served:
    """A running gateway: `url`, `pid`, and `triton` (HOST:PORT of gRPC) if it has started one."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.pid = process.pid
        self.url = ""
        self.triton = ""

    async def read(self, stream: asyncio.StreamReader) -> None:
        """Take addresses from the log, to its end."""
        async for line in stream:
            if found := re.search(rb"listening on (http://[\d.:]+)", line):
                self.url = found[1].decode()
            if found := re.search(rb"Triton serves .* on ([\d.]+:\d+)", line):
                self.triton = found[1].decode()

    async def status(self, path: str, seconds: float = 10.0) -> int:
        """The status of a GET; 0 without an answer."""
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        try:
            async with asyncio.timeout(seconds):
                reader, writer = await asyncio.open_connection(host, int(port))
                try:
                    writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
                    return int((await reader.read())[9:12] or 0)
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return 0


@contextlib.asynccontextmanager
async def served(*flags: str) -> AsyncIterator[Served]:
    """`python -m server` on a free port, ready; ended by SIGTERM."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server", "--port", "0", *flags), stderr=asyncio.subprocess.PIPE
    )
    gateway = Served(process)
    assert process.stderr is not None  # noqa: S101  (it is a pipe; said for the type checker)
    log = asyncio.create_task(gateway.read(process.stderr))
    try:
        end = time.monotonic() + START_SECONDS
        while not gateway.url or await gateway.status("/readyz") != 200:
            if process.returncode is not None or time.monotonic() > end:
                raise RuntimeError("the gateway does not start; start it by hand to see why")
            await asyncio.sleep(0.05)
        yield gateway
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await process.wait()
        await log


def family(pid: int) -> dict[int, str]:
    """The process and all below it: the command line of each."""
    found = {}
    with contextlib.suppress(OSError):
        found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                found |= family(int(child))
    return found


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Poll; ends the program when it takes too long."""
    for _ in range(int(START_SECONDS / 0.1)):
        if await condition():
            return
        await asyncio.sleep(0.1)
    sys.exit(f"not within {START_SECONDS:g} s: {what}")
