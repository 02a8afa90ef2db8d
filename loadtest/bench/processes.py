"""Programs that are measured: started, found with all their children, stopped.

In: a command. Out: its process, its address once it has printed one, and the CPU time that it and
its descendants have taken so far, by name. Linux: all is read from /proc.
"""

import asyncio
import contextlib
import os
import re
import sys
import urllib.request
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
START_SECONDS = 60
ROLES = {"tritonserver": "tritonserver", "triton_python_b": "backend"}  # by /proc/PID/comm


class Program:
    """A server that runs."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        """Of the process that was started."""
        return self._process.pid

    async def says(self, pattern: str) -> str:
        """The first group of what it has printed, as soon as it has."""
        for _ in range(50 * START_SECONDS):
            text = self._log.read_text()
            if found := re.search(pattern, text):
                return found[1]
            if self._process.returncode is not None:
                break
            await asyncio.sleep(0.02)
        sys.exit(f"{self.name} did not print {pattern!r}:\n{self._log.read_text()}")

    async def address(self, probe: str) -> str:
        """Its URL, once GET `probe` is answered with 200."""
        url = await self.says(r"(http://[\d.:]+)")
        for _ in range(50 * START_SECONDS):
            with contextlib.suppress(OSError):  # HTTP errors are a kind of it
                await asyncio.to_thread(urllib.request.urlopen, url + probe)
                return url
            await asyncio.sleep(0.02)
        sys.exit(f"{self.name} is not ready:\n{self._log.read_text()}")

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU so far, by role: the program's name for whatever has none."""
        seconds: dict[str, float] = defaultdict(float)
        for pid in tree(self.pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                text = Path(f"/proc/{pid}/stat").read_text()
                comm = text[text.index("(") + 1 : text.rindex(")")]
                fields = text[text.rindex(")") + 2 :].split()
                seconds[ROLES.get(comm, self.name)] += (int(fields[11]) + int(fields[12])) / TICK
        return seconds


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for parent in found:
        for tasks in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found += map(int, tasks.read_text().split())
    return found


@contextlib.asynccontextmanager
async def running(
    name: str, log: Path, *arguments: str, folder: Path | None = None
) -> AsyncIterator[Program]:
    """A Python module run as a program, in `folder`, until the context ends."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-u", "-m", *arguments), stdout=output, stderr=output, cwd=folder
        )
    try:
        yield Program(name, process, log)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
