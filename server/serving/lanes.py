"""A lane: places of one kind where images are decoded, and the work that waits for one of them.

In: work with its price and its client. Out: its pixels, or whether new work would be done in time.
The work is begun in fair order (server/serving/fairness.py). What a place is, a thread or a
process, says the lane's class (server/serving/thread_lane.py, server/serving/process_lane.py).
"""

import asyncio
import math
import time
from abc import ABC, abstractmethod
from concurrent.futures import Future
from dataclasses import dataclass, field

from contracts.resizing import Pixels, ResizeRule
from server.observability import metrics
from server.problems import TooBusy
from server.serving.admission import MARGIN
from server.serving.buffers import Hold
from server.serving.decoder_process import DecoderProcess
from server.serving.fairness import FairQueue
from server.serving.images.cost import Price
from server.serving.load import Load

PROBE_CLIENT, SHADOW_CLIENT = " probe", " shadow"  # no client has these names


def _future() -> "asyncio.Future[Decoded]":
    return asyncio.get_running_loop().create_future()


@dataclass(frozen=True)
class Decoded:
    """The pixels, and the seconds for which the image waited and was decoded."""

    pixels: Pixels
    waited: float
    took: float


@dataclass(eq=False)
class Work:
    """One image that waits for a place, or has one."""

    data: bytes  # emptied when it is given up, since a queue may still hold the work, or has ended
    rule: ResizeRule
    price: Price
    client: str
    hold: Hold
    answer: "asyncio.Future[Decoded]" = field(default_factory=_future)
    submitted: float = field(default_factory=time.perf_counter)
    job: "Future[Decoded] | None" = None  # in a thread
    task: "asyncio.Task[None] | None" = None  # in a process
    process: DecoderProcess | None = None
    begun: bool = False
    given_up: bool = False  # after it was given a place

    def count(self, pixels: int) -> None:
        """Count the image, whose header has been read, unless it is a probe or a copy."""
        if pixels and self.client not in {PROBE_CLIENT, SHADOW_CLIENT}:
            metrics.image_pixels.observe(pixels)

    def settle(self, outcome: Decoded | BaseException) -> None:
        """Give the outcome to the waiting request, if it still waits."""
        if self.answer.done():
            return
        if isinstance(outcome, Decoded):
            self.answer.set_result(outcome)
        else:
            self.answer.set_exception(outcome)


class Lane(ABC):
    """Places of one kind, and the waiting work; `ready` more images may leave the queue."""

    def __init__(self, name: str, places: int, ready: int = 0) -> None:
        self.name = name
        self.places = places
        self.turns = places + ready
        self.queue: FairQueue[Work] = FairQueue()
        self.load = Load(rate=float(places))
        self.running: set[Work] = set()
        self.closed = False  # no more work is begun

    @property
    def busy(self) -> int:
        """Places that are taken."""
        return min(self.places, len(self.running))

    def check(self, price: Price, client: str, seconds: float) -> None:
        """Raise `TooBusy` if one more image of this client and price would be done too late."""
        if not self.load.waiting:
            return
        # The rate of the last seconds; it is never taken as 0.
        rate = max(self.load.rate, 1e-3)
        excess = self.load.ahead(client, price.seconds) / rate - MARGIN * seconds
        if excess > 0:
            raise TooBusy(
                f"{len(self.queue) + len(self.running)} images wait to be decoded: not within the "
                f"{seconds:g} s that the request may take",
                max(1, math.ceil(excess)),
            )

    async def decode(self, work: Work) -> Decoded:
        """The pixels. If this is given up, `work.hold` is kept until a place is done with the work.

        Raises `UnreadableImage` or `DecodingStuck`.
        """
        self.load.admit(work.client, work.price.seconds)
        self.queue.push(work.client, work.price.seconds, work)
        self._next()
        try:
            return await work.answer
        except asyncio.CancelledError:
            # If its answer came at the same moment, nothing works on it any more.
            if work.answer.cancelled():
                self._give_up(work)
            raise

    @abstractmethod
    def _start(self, work: Work) -> None:
        """Have the work done: `_begin` says when a place begins it, `_end` that it has ended."""

    @abstractmethod
    def _stop(self, work: Work) -> None:
        """Stop work that was started, as far as its place can: no request waits for it."""

    def _fits(self, _work: Work) -> bool:
        """Whether the memory that the work needs is free."""
        return True

    def _next(self) -> None:
        """Give free places to the images whose turn it is."""
        while self.queue and len(self.running) < self.turns and not self.closed:
            work = self.queue.peek()
            if work.answer.done():
                self.queue.pop()
                continue
            if not self._fits(work):
                return  # until the memory is free
            self.queue.pop()
            self.running.add(work)
            self._start(work)

    def _begin(self, work: Work) -> None:
        work.begun = True
        self.load.begin(work.price.seconds)

    def _end(self, work: Work, done: float) -> None:
        """Free the place of the work; `done` of its price, in seconds, was done."""
        self.running.discard(work)
        work.data = b""
        if work.given_up:
            work.hold.release()
        self.load.end(work.client, work.price.seconds, begun=work.begun, done=done)
        if not self.queue and not self.running:
            self.queue.rest()
        self._next()

    def _give_up(self, work: Work) -> None:
        if work in self.running:
            work.given_up = True
            work.hold.keep()  # until it has ended
            self._stop(work)
        elif work.data:  # it still waits
            work.data = b""
            self.load.end(work.client, work.price.seconds, begun=False)
