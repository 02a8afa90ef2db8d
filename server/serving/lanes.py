"""The places where images are decoded, and the work that waits for one.

In: work with its price and its client. Out: whether new work would be done in time, and the next
work, in fair order (server/serving/fairness.py).
"""

import asyncio
import math
import time
from concurrent.futures import Future
from dataclasses import dataclass, field

from contracts.resizing import Pixels, ResizeRule
from server.problems import TooBusy
from server.serving.admission import MARGIN
from server.serving.buffers import Hold
from server.serving.decoder_process import DecoderProcess
from server.serving.fairness import FairQueue
from server.serving.images.cost import Price
from server.serving.load import Load


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

    data: bytes  # emptied when it is given up: a queue may still hold the work
    rule: ResizeRule
    price: Price
    client: str
    hold: Hold
    memory: int = 0  # of the budget
    answer: "asyncio.Future[Decoded]" = field(default_factory=_future)
    submitted: float = field(default_factory=time.perf_counter)
    task: "asyncio.Task[None] | None" = None  # in a process
    job: "Future[Decoded] | None" = None  # in a thread
    process: DecoderProcess | None = None
    given_up: bool = False  # while a process works on it
    begun: bool = False

    def begin(self, lane: "Lane") -> None:
        """Note that a thread or a process begins the work."""
        self.begun = True
        lane.load.begin(self.price.seconds)


class Lane:
    """Places of one kind, and the waiting work; `ready` more images may leave the queue."""

    def __init__(self, name: str, places: int, ready: int = 0) -> None:
        self.name = name
        self.places = places
        self.turns = places + ready
        self.queue: FairQueue[Work] = FairQueue()
        self.load = Load(rate=float(places))
        self.running: set[Work] = set()

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
