"""Decoding in bounded places: small work in threads, large work in processes that can be ended.

In: the bytes of an image, its `Price`, its client and the seconds that it may take. Out: pixels.
Waiting images are taken in fair order in each of the two lanes separately (server/serving/lanes.py)
so that small work never waits behind large work. Both lanes together take no more memory than their
budget. An image whose turn would come too late is refused at once (docs/serving.md).
"""

import asyncio
import io
import time

import numpy as np
from PIL import Image

from contracts.resizing import ResizeRule
from server.observability import metrics
from server.problems import DecodingStuck, Problem, TooManyPixels
from server.serving.buffers import Buffers, Hold
from server.serving.images import cost
from server.serving.images.cost import Price
from server.serving.images.worker import OWN_BYTES, SLACK_BYTES
from server.serving.lanes import PROBE_CLIENT, Decoded, Lane, Work
from server.serving.process_lane import ProcessLane
from server.serving.thread_lane import ThreadLane

# Images in threads may take at most this fraction (1/4) of the budget.
THREADS_SHARE = 4
# What a process may take beside its image; all processes together may take this fraction (1/3) of
# the budget for that.
PROCESS_BYTES = OWN_BYTES + SLACK_BYTES
PROCESSES_SHARE = 3
# If a probe is not decoded within PROBE_SECONDS, decoding is stuck; so it is if a process makes no
# progress for STALLED_SECONDS. Since a verdict is good for 1 s, 503 comes within 3 s.
PROBE_SECONDS = 1.75
STALLED_SECONDS = 1.0
PROBE_RULE = ResizeRule(32, 32)
MEASURE_SECONDS = 1.0  # between two measurements of the queues


class Decoding:
    """Made inside the running event loop. Close it at the end."""

    def __init__(self, threads: int, memory: int, max_pixels: int) -> None:
        """`threads` is how many images each lane decodes at once; `memory` is in bytes.

        With little memory there are fewer processes than threads.
        """
        # A thread may always begin: the memory that all threads may take is reserved.
        self._thread_bytes = min(cost.THREAD_BYTES, memory // (THREADS_SHARE * threads))
        self.threads = ThreadLane(threads, max_pixels)
        processes = memory // (PROCESSES_SHARE * PROCESS_BYTES)
        self.processes = ProcessLane(
            max(1, min(threads, processes)), memory - threads * self._thread_bytes, max_pixels
        )
        self._lanes: tuple[Lane, Lane] = (self.threads, self.processes)
        self._probe = _probe_image()

    async def close(self) -> None:
        """Give up waiting images; end the threads after their images, and the processes at once."""
        self.threads.closed = True  # before the wait for the processes
        await self.processes.close()
        self.threads.close()

    async def decode(
        self,
        data: bytes,
        rule: ResizeRule,
        price: Price,
        *,
        client: str,
        seconds: float,
        hold: Hold,
    ) -> Decoded:
        """The pixels. If this is given up, a thread that has begun keeps `hold` until its end.

        Raises `TooBusy` at once if `seconds` will not be enough, `TooManyPixels` if the budget is
        less than the image needs, `UnreadableImage`, or `DecodingStuck`.
        """
        lane = self._lane(price)
        lane.check(price, client, seconds)
        return await lane.decode(Work(data, rule, price, client, hold))

    def _lane(self, price: Price) -> Lane:
        if not price.killable and price.memory <= self._thread_bytes:
            return self.threads
        memory = self.processes.memory
        if price.memory > memory:
            raise TooManyPixels(
                f"the {price.kind} of {price.width}×{price.height} pixels would take "
                f"{price.memory >> 20} MiB to decode, this server has {memory >> 20} for "
                "that; scale it down"
            )
        return self.processes

    @property
    def queued(self) -> int:
        """Images that wait for a place."""
        return sum(len(lane.queue) for lane in self._lanes)

    @property
    def oldest(self) -> float:
        """Seconds for which the oldest image has waited or been decoded."""
        now = time.perf_counter()
        work = (each for lane in self._lanes for each in (*lane.queue.work(), *lane.running))
        return now - min((each.submitted for each in work), default=now)

    async def watch(self) -> None:
        """Report the waiting images to the metrics, until it is cancelled."""
        while True:
            metrics.decode_oldest.set(self.oldest)
            metrics.decode_waiting.set(self.queued)
            metrics.decode_bytes.set(
                sum(work.price.memory for lane in self._lanes for work in lane.running)
            )
            await asyncio.sleep(MEASURE_SECONDS)

    async def probe(self) -> Problem | None:
        """The problem, if any, found by decoding an image in the same way as a client's.

        Processes are probed only if one is idle or the last one failed: most gateways need no
        process. For busy processes it is enough that they make progress on their images.
        """
        if self.processes.stalled > STALLED_SECONDS:
            return DecodingStuck("a process that decodes images gets nowhere")
        probed = self._lanes if self.processes.failed or self.processes.idle else (self.threads,)
        for problem in await asyncio.gather(*map(self._probe_in, probed)):
            if problem is not None:
                return problem
        return None

    async def _probe_in(self, lane: Lane) -> Problem | None:
        price = cost.price("JPEG", self._probe, PROBE_RULE)
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                with Buffers(2**20, 2**20, 1.0).hold(PROBE_CLIENT) as hold:
                    await lane.decode(Work(self._probe, PROBE_RULE, price, PROBE_CLIENT, hold))
        except TimeoutError:
            if lane is self.processes:
                self.processes.failed = True
            return DecodingStuck(
                f"an image was not decoded within {PROBE_SECONDS:g} s; "
                f"{lane.busy} of {lane.places} places for {lane.name} are taken"
            )
        except Problem as problem:
            return problem
        return None


def _probe_image() -> bytes:
    """A JPEG of 64 × 64 pixels."""
    file = io.BytesIO()
    Image.fromarray(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)).save(file, "JPEG")
    return file.getvalue()
