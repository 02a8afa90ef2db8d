"""Decoding in bounded places: small work in threads, large work in processes that can be ended.

In: the bytes of an image, its `Price`, its client and the seconds that it may take. Out: pixels.
Waiting images are taken in fair order (server/serving/fairness.py), in each of the two lanes
separately, so that small work never waits behind large work. Both lanes together take no more
memory than their budget: an image waits until the memory that it will need is free. An image whose
turn would come too late is refused at once.

A thread adds no cost, but cannot be ended; so threads get only short work. A process costs a copy
of the image and of its pixels, and is killed soon after the image's deadline passes or its client
goes (docs/serving.md).
"""

import asyncio
import io
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from PIL import Image

from contracts.resizing import ResizeRule
from server.host.niceness import lower_priority
from server.observability import metrics
from server.problems import (
    DecodingStuck,
    Problem,
    TooManyPixels,
    UnreadableImage,
)
from server.serving.buffers import Buffers, Hold
from server.serving.decoder_process import PROBLEMS, DecoderProcess
from server.serving.images import cost
from server.serving.images.cost import Price
from server.serving.images.decoding import decode, open_header
from server.serving.images.worker import OWN_BYTES, SLACK_BYTES, Job
from server.serving.lanes import Decoded, Lane, Work

# The CPU that a process may use for an image, in honest progressive JPEGs of --max-pixels; no image
# may cost more.
MOST_CPU = 3.0
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
PROBE_CLIENT, SHADOW_CLIENT = " probe", " shadow"  # no client has these names
PROBE_RULE = ResizeRule(32, 32)
# An image for which no request waits any more may still be finished within this time: a process
# that is killed has to be started again, which takes as much of a core.
GRACE_SECONDS = 0.5
MEASURE_SECONDS = 1.0  # between two measurements of the queues
# So many images are ready for each thread, so that it goes on without waiting for the event loop.
READY = 1


class Decoding:
    """Made inside the running event loop. Close it at the end."""

    def __init__(self, threads: int, memory: int, max_pixels: int) -> None:
        """`threads` is how many images each lane decodes at once; `memory` is in bytes.

        With little memory there are fewer processes than threads.
        """
        self._max_pixels = max_pixels
        self._threads = ThreadPoolExecutor(
            threads, thread_name_prefix="decode", initializer=lower_priority
        )
        # A thread may always begin: the memory that all threads may take is reserved.
        self._thread_bytes = min(cost.THREAD_BYTES, memory // (THREADS_SHARE * threads))
        self.memory = memory - threads * self._thread_bytes
        self.held = 0  # bytes that the images in processes may take now
        self._small = Lane("threads", threads, READY * threads)
        processes = memory // (PROCESSES_SHARE * PROCESS_BYTES)
        self._large = Lane("processes", max(1, min(threads, processes)))
        self._idle: deque[DecoderProcess] = deque()
        self._starting: set[asyncio.Task[DecoderProcess]] = set()
        self._probe = _probe_image()
        self._failed: DecodingStuck | None = None  # why the last process failed
        self._closed = False

    async def close(self) -> None:
        """Give up waiting images; end the threads after their images, and the processes at once."""
        self._closed = True
        running = [work.task for work in self._large.running if work.task is not None]
        tasks = (*running, *self._starting)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(process.close() for process in self._idle))
        self._threads.shutdown(cancel_futures=True)

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
        return await self._in(lane, Work(data, rule, price, client, hold))

    @property
    def queued(self) -> int:
        """Images that wait for a place."""
        return len(self._small.queue) + len(self._large.queue)

    async def probe(self) -> Problem | None:
        """The problem, if any, found by decoding an image in the same way as a client's.

        Processes are probed only if one is idle or the last one failed: most gateways need no
        process. For busy processes it is enough that they make progress on their images.
        """
        for work in self._large.running:
            if work.process is not None and work.process.stalled > STALLED_SECONDS:
                return DecodingStuck("a process that decodes images gets nowhere")
        lanes = [self._small]
        if self._failed or self._idle:
            lanes.append(self._large)
        for problem in await asyncio.gather(*map(self._probe_in, lanes)):
            if problem is not None:
                return problem
        return None

    async def _probe_in(self, lane: Lane) -> Problem | None:
        price = cost.price("JPEG", self._probe, PROBE_RULE)
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                with Buffers(2**20, 2**20, 1.0).hold(PROBE_CLIENT) as hold:
                    work = Work(self._probe, PROBE_RULE, price, PROBE_CLIENT, hold)
                    await self._in(lane, work)
        except TimeoutError:
            stuck = DecodingStuck(
                f"an image was not decoded within {PROBE_SECONDS:g} s; "
                f"{lane.busy} of {lane.places} places for {lane.name} are taken"
            )
            if lane is self._large:
                self._failed = stuck
            return stuck
        except Problem as problem:
            return problem
        return None

    async def watch(self) -> None:
        """Report the waiting images to the metrics, until it is cancelled."""
        while True:
            lanes = (self._small, self._large)
            metrics.decode_oldest.set(self.oldest)
            metrics.decode_waiting.set(sum(len(lane.queue) for lane in lanes))
            metrics.decode_bytes.set(
                sum(work.price.memory for lane in lanes for work in lane.running)
            )
            await asyncio.sleep(MEASURE_SECONDS)

    async def _in(self, lane: Lane, work: Work) -> Decoded:
        client, price = work.client, work.price
        if lane is self._large and client != PROBE_CLIENT:  # the memory for a probe is always there
            work.memory = price.memory
        lane.load.admit(client, price.seconds)
        lane.queue.push(client, price.seconds, work)
        self._begin(lane)
        try:
            return await work.answer
        except asyncio.CancelledError:
            self._give_up(lane, work)
            raise

    def _lane(self, price: Price) -> Lane:
        if not price.killable and price.memory <= self._thread_bytes:
            return self._small
        if price.memory > self.memory:
            raise TooManyPixels(
                f"the {price.kind} of {price.width}×{price.height} pixels would take "
                f"{price.memory >> 20} MiB to decode, this server has {self.memory >> 20} for "
                "that; scale it down"
            )
        return self._large

    @property
    def processes(self) -> int:
        """How many large images are decoded at once."""
        return self._large.places

    @property
    def oldest(self) -> float:
        """Seconds for which the oldest image has waited or been decoded."""
        now = time.perf_counter()
        lanes = (self._small, self._large)
        began = [work.submitted for lane in lanes for work in (*lane.queue.work(), *lane.running)]
        return now - min(began, default=now)

    def _give_up(self, lane: Lane, work: Work) -> None:
        if not work.answer.cancelled():
            return  # its answer came at the same moment: nothing works on it any more
        if work.task is not None:
            work.hold.keep()  # until its process is done, or killed by this
            work.given_up = True
            asyncio.get_running_loop().call_later(GRACE_SECONDS, work.task.cancel)
        elif work.job is not None:
            if work.job.cancel():  # it has not begun
                work.data = b""
            else:
                work.hold.keep()  # until its thread is done
        elif work.data:
            work.data = b""
            lane.load.end(work.client, work.price.seconds, begun=False)

    def _begin(self, lane: Lane) -> None:
        """Give free places to the images whose turn it is."""
        while lane.queue and len(lane.running) < lane.turns and not self._closed:
            work = lane.queue.peek()
            if work.answer.done():
                lane.queue.pop()
                continue
            if self.held + work.memory > self.memory and lane.running:
                return  # until the memory that it needs is free
            lane.queue.pop()
            lane.running.add(work)
            self.held += work.memory
            if lane is self._small:
                work.begin(lane)
                self._in_thread(work)
            else:
                work.task = asyncio.create_task(self._in_process(work))

    def _end(self, lane: Lane, work: Work, done: float) -> None:
        """The place and the memory of the work are free."""
        lane.running.discard(work)
        self.held -= work.memory
        lane.load.end(work.client, work.price.seconds, begun=work.begun, done=done)
        if not lane.queue and not lane.running:
            lane.queue.rest()
        self._begin(lane)

    def _in_thread(self, work: Work) -> None:
        loop = asyncio.get_running_loop()
        work.job = job = self._threads.submit(self._run, work)
        job.add_done_callback(lambda job: loop.call_soon_threadsafe(self._thread_ended, work, job))

    def _run(self, work: Work) -> Decoded:
        """What a thread does."""
        began = time.perf_counter()
        data, work.data = work.data, b""
        image = open_header(data, self._max_pixels)
        if image.width * image.height > work.price.width * work.price.height:
            raise UnreadableImage("the image is larger than its header says; save it anew")
        _count(work, image.width * image.height)
        pixels = decode(image, work.rule)
        return Decoded(pixels, began - work.submitted, time.perf_counter() - began)

    def _thread_ended(self, work: Work, job: "Future[Decoded]") -> None:
        if job.cancelled():  # given up before it began, by its request or by `close`
            self._end(self._small, work, 0.0)
            work.answer.cancel()
            return
        # The job holds its callback, which holds the work: the pixels would stay until the next
        # garbage collection.
        work.job = None
        self._end(self._small, work, work.price.seconds)
        error = job.exception()
        if work.answer.cancelled():
            work.hold.release()
        elif isinstance(error, Exception):
            work.answer.set_exception(error)
        else:
            work.answer.set_result(job.result())

    async def _process(self) -> DecoderProcess:
        """An idle or a new process. If this is given up during a start, the process is kept."""
        while self._idle:
            idle = self._idle.popleft()
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
            self._idle.append(starting.result())

    async def _in_process(self, work: Work) -> None:
        began = time.perf_counter()
        done = 0.0
        try:
            process = work.process = await self._process()
            work.begin(self._large)  # only now: a process that starts tells nothing about the rate
            seconds = MOST_CPU * cost.honest(self._max_pixels, work.rule) * process.speed
            job = Job(work.rule, self._max_pixels, seconds, work.price.memory)
            result, pixels = await process.decode(job, work.data)
            self._idle.append(process)
            self._failed = None
            done = work.price.seconds
            # CPU that it took beyond its price counts against the client's next image.
            self._large.queue.charge(work.client, max(0.0, result.cpu / process.speed - done))
            _count(work, result.pixels)
            if pixels is None:
                error = PROBLEMS.get(result.problem, UnreadableImage)(result.detail)
                _settle(work.answer, error=error)
            else:
                took = time.perf_counter() - began
                _settle(work.answer, Decoded(pixels, began - work.submitted, took))
        except asyncio.CancelledError:
            done = min(work.price.seconds, time.perf_counter() - began)
            work.answer.cancel()
        except Exception as error:
            if isinstance(error, DecodingStuck):
                self._failed = error
            done = work.price.seconds
            _settle(work.answer, error=error)
        finally:
            work.data = b""
            if work.given_up:
                work.hold.release()
            self._end(self._large, work, done)


def _count(work: Work, pixels: int) -> None:
    """Count an image whose header has been read, unless it is a probe or a copy."""
    if pixels and work.client not in {PROBE_CLIENT, SHADOW_CLIENT}:
        metrics.image_pixels.observe(pixels)


def _settle(
    answer: "asyncio.Future[Decoded]",
    decoded: Decoded | None = None,
    error: Exception | None = None,
) -> None:
    """Give the result to the waiting request, if it still waits."""
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    elif decoded is not None:
        answer.set_result(decoded)


def _probe_image() -> bytes:
    """A JPEG of 64 × 64 pixels."""
    file = io.BytesIO()
    Image.fromarray(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)).save(file, "JPEG")
    return file.getvalue()
