"""The lane of processes: images whose decoding is long or takes much memory.

In: work, and the memory that all of it may take at once. Out: pixels. A process costs a copy of the
image and of its pixels, and is killed soon after the image's deadline passes or its client goes.
Work waits until the memory that it needs is free.
"""

import asyncio
import time
from collections import deque

from server.problems import DecodingStuck, UnreadableImage
from server.serving.decoder_process import PROBLEMS, DecoderProcess
from server.serving.images import cost
from server.serving.images.worker import Job
from server.serving.lanes import PROBE_CLIENT, Decoded, Lane, Work

# The CPU that a process may use for an image, in honest progressive JPEGs of --max-pixels; no image
# may cost more.
MOST_CPU = 3.0
# An image for which no request waits any more may still be finished within this time: a process
# that is killed has to be started again, which takes as much of a core.
GRACE_SECONDS = 0.5


class ProcessLane(Lane):
    """Processes that decode, started when they are first needed. Close it at the end."""

    def __init__(self, processes: int, memory: int, max_pixels: int) -> None:
        """`memory`, in bytes, is for the images, beside what each process takes for itself."""
        super().__init__("processes", processes)
        self.memory = memory
        self.failed = False  # the last process
        self.idle: deque[DecoderProcess] = deque()
        self._starting: set[asyncio.Task[DecoderProcess]] = set()
        self._max_pixels = max_pixels

    @property
    def held(self) -> int:
        """Bytes that the images in processes may take now."""
        return sum(map(_memory, self.running))

    @property
    def stalled(self) -> float:
        """The seconds for which a process has made no progress on its image, the most of all."""
        return max((each.process.stalled for each in self.running if each.process), default=0.0)

    async def close(self) -> None:
        """Give up all images, and end the processes at once."""
        self.closed = True
        running = [work.task for work in self.running if work.task is not None]
        tasks = (*running, *self._starting)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(process.close() for process in self.idle))

    def _fits(self, work: Work) -> bool:
        return not self.running or self.held + _memory(work) <= self.memory

    def _start(self, work: Work) -> None:
        work.task = asyncio.create_task(self._run(work))

    def _stop(self, work: Work) -> None:
        if work.task is not None:
            asyncio.get_running_loop().call_later(GRACE_SECONDS, work.task.cancel)

    async def _run(self, work: Work) -> None:
        began = time.perf_counter()
        done = 0.0
        try:
            process = work.process = await self._process()
            self._begin(work)  # only now: a process that starts tells nothing about the rate
            seconds = MOST_CPU * cost.honest(self._max_pixels, work.rule) * process.speed
            job = Job(work.rule, self._max_pixels, seconds, work.price.memory)
            result, pixels = await process.decode(job, work.data)
            self.idle.append(process)
            self.failed = False
            done = work.price.seconds
            # CPU that it took beyond its price counts against the client's next image.
            self.queue.charge(work.client, max(0.0, result.cpu / process.speed - done))
            work.count(result.pixels)
            if pixels is None:
                work.settle(PROBLEMS.get(result.problem, UnreadableImage)(result.detail))
            else:
                took = time.perf_counter() - began
                work.settle(Decoded(pixels, began - work.submitted, took))
        except asyncio.CancelledError:
            done = min(work.price.seconds, time.perf_counter() - began)
            work.answer.cancel()
        except Exception as error:
            self.failed = self.failed or isinstance(error, DecodingStuck)
            done = work.price.seconds
            work.settle(error)
        finally:
            self._end(work, done)

    async def _process(self) -> DecoderProcess:
        """An idle or a new process. If this is given up during a start, the process is kept."""
        while self.idle:
            idle = self.idle.popleft()
            if idle.alive:  # the kernel may have killed it, where memory was short
                return idle
        starting = asyncio.create_task(DecoderProcess.start())
        self._starting.add(starting)
        starting.add_done_callback(self._starting.discard)
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(self._started_late)
            raise

    def _started_late(self, starting: "asyncio.Task[DecoderProcess]") -> None:
        if not starting.cancelled() and starting.exception() is None:
            self.idle.append(starting.result())


def _memory(work: Work) -> int:
    """Bytes of the budget that the work needs; the memory for a probe is always there."""
    return 0 if work.client == PROBE_CLIENT else work.price.memory
