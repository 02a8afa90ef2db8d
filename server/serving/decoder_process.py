"""The gateway's side of a process of images/worker.py: one image at a time, killed at any time.

In: the bytes of an image and the limits for decoding it. Out: pixels, or the `Problem` of the
image. If no request waits for the answer any more, the process is killed, so that its core is free
at once.
"""

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from contracts.resizing import Pixels
from server.problems import CLASSES, DecodingStuck, Problem, UnreadableImage
from server.serving.images.worker import LENGTH, Job, Result

logger = logging.getLogger(__name__)

CHECKOUT = Path(__file__).resolve().parents[2]
# It imports Pillow and numpy, and decodes a few images; a loaded machine takes its time.
START_SECONDS = 30.0
STARTING_NICENESS = 10  # as threads that decode have; higher while it decodes
# A process that neither progresses nor waits for a core for so long is stopped or stuck.
STUCK_SECONDS = 2.0
# Nothing that an image does to its process ends it by these signals: its memory has a limit of its
# own, at which an allocation fails.
KILLED = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
CPU_TICK = 0.01  # Linux gives the CPU of another process in hundredths of a second
PROBLEMS: dict[str, type[Problem]] = {problem.name: problem for problem in CLASSES}


class DecoderProcess:
    """Make it with `start`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.speed = 1.0  # time relative to the machine where prices were measured
        self._busy = False
        self._progress = self._since = 0.0  # CPU time and clock at the last progress

    @classmethod
    async def start(cls) -> "DecoderProcess":
        """A process that is ready for an image. Raises `DecodingStuck` if it does not start."""
        path = os.pathsep.join(filter(None, (str(CHECKOUT), os.environ.get("PYTHONPATH"))))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "server.serving.images.worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
        )
        decoder = cls(process)
        with contextlib.suppress(ProcessLookupError):
            # At once after the start: the imports take half a second of a core.
            os.setpriority(os.PRIO_PROCESS, process.pid, STARTING_NICENESS)
        try:
            async with asyncio.timeout(START_SECONDS):
                hello, _ = await decoder._receive()
        except (TimeoutError, asyncio.IncompleteReadError):
            await decoder.kill()
            raise DecodingStuck("a process that decodes images does not start") from None
        except BaseException:
            await decoder.kill()
            raise
        decoder.speed = float(hello["speed"])
        return decoder

    @property
    def alive(self) -> bool:
        """Whether it can be given an image."""
        return self._process.returncode is None

    async def decode(self, job: Job, data: bytes) -> tuple[Result, Pixels | None]:
        """The pixels of an image, or its problem. If the call is given up, the process is killed.

        Raises `UnreadableImage` if the process died of the image or took more than `job.seconds` of
        CPU, `DecodingStuck` if it made no progress or was killed from outside.
        """
        try:
            self._send({**dataclasses.asdict(job)}, data)
            return await self._answer(job)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise await self._reason(job) from None
        except BaseException:
            await self.kill()
            raise

    async def kill(self) -> None:
        """Kill the process, whatever it does, and wait for its end."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await asyncio.shield(self._process.wait())

    async def close(self) -> None:
        """Let the process, which has nothing to do, end by itself."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(1):
                await self._process.wait()
        except TimeoutError:
            await self.kill()

    def _send(self, header: object, payload: bytes) -> None:
        text = json.dumps(header).encode()
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        self._process.stdin.write(LENGTH.pack(len(text), len(payload)) + text)
        self._process.stdin.write(payload)

    @property
    def stalled(self) -> float:
        """Seconds without progress on its current image; 0 if it has none."""
        if self._busy:
            self._look()
        return time.monotonic() - self._since if self._busy else 0.0

    async def _answer(self, job: Job) -> tuple[Result, Pixels | None]:
        waiting = asyncio.create_task(self._receive())
        try:
            self._since, self._busy = time.monotonic(), True
            began = self._progress = self._cpu()
            pause = min(STUCK_SECONDS / 4, job.seconds)
            while not (await asyncio.wait([waiting], timeout=pause))[0]:
                if self._look() - began > job.seconds:
                    raise _too_long(job)
                # With one thread the process cannot use the rest of its CPU any sooner.
                pause = min(STUCK_SECONDS / 4, began + job.seconds - self._progress + CPU_TICK)
                if time.monotonic() - self._since > STUCK_SECONDS and self.alive:
                    logger.error("the process %d that decodes images is stuck", self._process.pid)
                    raise DecodingStuck("a process that decodes images got nowhere; try again")
            header, payload = waiting.result()
        finally:
            self._busy = False
            waiting.cancel()
        shape = header.pop("shape")
        result = Result(shape=tuple(shape) if shape else None, **header)
        if result.cpu > job.seconds:
            raise _too_long(job)
        if result.shape is None:
            return result, None
        return result, np.frombuffer(payload, np.uint8).reshape(result.shape)

    def _look(self) -> float:
        """Check for progress; returns the seconds of CPU that the process has had."""
        now = self._cpu()
        if now != self._progress or self._runnable():
            self._progress, self._since = now, time.monotonic()
        return now

    def _cpu(self) -> float:
        """Seconds of CPU that the process has had; -1 if it has ended."""
        try:
            times = psutil.Process(self._process.pid).cpu_times()
        except psutil.Error:
            return -1.0
        return float(times.user + times.system)

    def _runnable(self) -> bool:
        """Whether it computes, or waits only for a core: while others are busy, it runs last."""
        try:
            return bool(psutil.Process(self._process.pid).status() == psutil.STATUS_RUNNING)
        except psutil.Error:
            return False

    async def _receive(self) -> tuple[dict[str, Any], bytes]:
        source = self._process.stdout
        assert source is not None  # noqa: S101 - a pipe was asked for
        text, payload = LENGTH.unpack(await source.readexactly(LENGTH.size))
        header = json.loads(await source.readexactly(text))
        return header, await source.readexactly(payload)

    async def _reason(self, job: Job) -> Problem:
        """The problem of an image over which the process ended."""
        status = await self._process.wait()
        if status == -signal.SIGXCPU:
            return _too_long(job)
        logger.warning("a process that decodes images ended with %d over one", status)
        if -status in KILLED:
            return DecodingStuck("the process that decoded the image was killed; try again")
        return UnreadableImage("the decoder could not cope with the image; save it anew")


def _too_long(job: Job) -> UnreadableImage:
    return UnreadableImage(
        f"decoding takes more than {job.seconds:.1f} s of CPU, far more than the size of the image "
        "tells; save it anew"
    )
