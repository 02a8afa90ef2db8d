"""A second model that answers copies of requests, to be compared with the one that users get.

In: requests and answers of users, after the answer has left. Out: how often both models agree, how
far their answers differ and how long both take, as metrics; the ids of the last requests on which
they disagree. No user waits for a copy: copies are compared one at a time, and only while no user's
image waits for a place. Their queue has bounds; copies beyond the bounds are dropped and counted. A
copy is kept only in memory, and only until it has been compared. Whatever happens to the second
model, users get their answers.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from server.engines.model import Model, Probabilities
from server.observability import logs, metrics
from server.observability.timings import Timings
from server.problems import Problem, UnknownModel
from server.serving.buffers import Buffers
from server.serving.classify import Classifier, Image, Terms
from server.serving.lanes import SHADOW_CLIENT

logger = logging.getLogger(__name__)

MOST_COPIES = 256
MOST_BYTES = 64 * 2**20
PATIENCE = 5.0  # seconds for which a copy waits until no user's image does
LOOK_SECONDS = 0.005  # between two checks whether that is so
CHECK_SECONDS = 1.0  # until the engine knows its models
LEAST_PAUSE, MOST_PAUSE = 1.0, 60.0  # seconds without copies after a failure
MOST_EXAMPLES = 20


@dataclass(frozen=True)
class Aim:
    """The second model, and the share of requests, 0 to 1, that it gets copies of.

    While that model is the default itself, `former` gets the copies.
    """

    candidate: str
    share: float
    former: str


@dataclass(frozen=True)
class Copy:
    """An image, and the answer that its user got: float32[K], `seconds` after it was decoded."""

    image: Image
    model: Model
    probabilities: Probabilities
    seconds: float
    request_id: str

    @property
    def size(self) -> int:
        """The size in bytes."""
        return len(self.image) if isinstance(self.image, bytes) else self.image.nbytes


@dataclass(frozen=True)
class First:
    """The first class of an answer."""

    label: str
    probability: float


@dataclass(frozen=True)
class Example:
    """A request on which the two models disagree; `time` is seconds since 1970."""

    request_id: str
    model: str
    candidate: str
    served: First
    shadow: First
    divergence: float
    time: float


class Shadow:
    """Takes copies and compares, as long as `run` runs in the event loop."""

    def __init__(
        self,
        classifier: Classifier,
        aim: Aim,
        seconds: float,
        disagreed: Callable[[list[Example]], None] = lambda _: None,
    ) -> None:
        """A copy may take `seconds`. `disagreed` is called with the last examples, in a thread,
        whenever there is a new one."""
        self.candidate, self.share = aim.candidate, aim.share
        self.examples: deque[Example] = deque(maxlen=MOST_EXAMPLES)
        self._classifier = classifier
        self._engine = classifier.models
        self._former = aim.former
        self._seconds = seconds
        self._disagreed = disagreed
        self._copies: deque[tuple[Copy, str, float]] = deque()  # for which model, and since when
        self._bytes = 0
        self._there = asyncio.Event()
        self._buffers = Buffers(2**62, 2**62, seconds)  # the bounds are on the queue
        self._resume = float("-inf")
        self._pause = LEAST_PAUSE

    @property
    def other(self) -> str:
        """The model that gets copies: the candidate, or, if it is the default, the former one."""
        return self._former if self._engine.default == self.candidate else self.candidate

    def wants(self, model: Model) -> bool:
        """Whether a request that this model has answered belongs to the share to copy."""
        default = self._engine.default
        sampled = random.random() < self.share  # noqa: S311 - nothing is secret about it
        return model.name == default != self.other and sampled

    def offer(self, copy: Copy) -> None:
        """Queue a copy, whose answer has left, unless there is no room for it.

        The copy is for the model that is the other one now, whatever becomes the default later.
        """
        now, other = time.monotonic(), self.other
        if other == copy.model.name:
            return  # the default was changed since the request was answered
        if now < self._resume:
            self._count(copy, other, "paused")
        elif len(self._copies) >= MOST_COPIES or self._bytes + copy.size > MOST_BYTES:
            self._count(copy, other, "full")
        else:
            self._copies.append((copy, other, now))
            self._bytes += copy.size
            self._there.set()

    async def run(self) -> None:
        """Compare one copy after the other, for ever."""
        while True:
            await self._there.wait()
            copy, other, since = self._copies.popleft()
            if not self._copies:
                self._there.clear()
            try:
                if time.monotonic() < self._resume:
                    self._count(copy, other, "paused")
                elif await self._free(since):
                    await self._answer(copy, other)
                else:
                    self._count(copy, other, "busy")
            except Exception:
                # A failed comparison must not prevent the next one.
                logger.exception("a copy for model %s could not be compared", other)
                self._count(copy, other, "failed")
            finally:
                self._bytes -= copy.size
                del copy

    async def check(self) -> None:
        """Warn if there is no candidate, as soon as the engine knows its models."""
        while True:
            try:
                self._engine.entry(self.candidate)
            except UnknownModel as missing:
                logger.warning("--shadow: %s; it gets copies once it is served", missing.detail)
            except Problem as problem:  # the engine has not answered yet
                problem.forget()
                await asyncio.sleep(CHECK_SECONDS)
                continue
            return

    async def _free(self, since: float) -> bool:
        """Wait until no user's image waits for a place; False if that takes too long."""
        while self._classifier.queued:
            if time.monotonic() - since > PATIENCE:
                return False
            await asyncio.sleep(LOOK_SECONDS)
        return True

    async def _answer(self, copy: Copy, name: str) -> None:
        """Let the other model, which has this name, answer, and compare."""
        logs.request_id.set(copy.request_id)
        timings = Timings(time.perf_counter(), copy.request_id)
        try:
            other = self._engine.get(name)
            if not fits(copy, other):
                self._count(copy, name, "unfit")
                return
            with self._buffers.hold(SHADOW_CLIENT) as hold:
                terms = Terms(other, self._seconds, SHADOW_CLIENT, timings, hold)
                row, _ = await self._classifier.one(copy.image, terms)
        except Problem as problem:
            problem.forget()
            self._count(copy, name, "failed")
            self._resume = time.monotonic() + self._pause
            logger.warning(
                "model %s, which shadows %s, fails: %s; it gets no copies for %g s",
                *(name, copy.model.name, problem.detail, self._pause),
            )
            self._pause = min(MOST_PAUSE, 2 * self._pause)
            return
        self._pause = LEAST_PAUSE
        await self._compare(copy, other, row, timings.inference or 0.0)

    async def _compare(self, copy: Copy, other: Model, row: Probabilities, seconds: float) -> None:
        names = copy.model.name, other.name
        divergence = jensen_shannon(copy.probabilities, row)
        metrics.shadow_divergence.labels(*names).observe(divergence)
        difference = float(np.abs(copy.probabilities - row).mean())
        metrics.shadow_difference.labels(*names).observe(difference)
        metrics.shadow_seconds.labels(*names, "served").observe(copy.seconds)
        metrics.shadow_seconds.labels(*names, "shadow").observe(seconds)
        self._count(copy, other.name, "compared")
        one, two = first(copy.model, copy.probabilities), first(other, row)
        if one.label == two.label:
            metrics.shadow_agreed.labels(*names).inc()
            return
        example = Example(copy.request_id, *names, one, two, round(divergence, 6), time.time())
        self.examples.append(example)
        with contextlib.suppress(OSError):  # on a full disk only the examples are lost
            await asyncio.to_thread(self._disagreed, list(self.examples))

    def _count(self, copy: Copy, other: str, outcome: str) -> None:
        metrics.shadow_copies.labels(copy.model.name, other, outcome).inc()


def fits(copy: Copy, other: Model) -> bool:
    """Whether the other model has the same classes, and takes the image as it was sent."""
    if other.labels != copy.model.labels:
        return False
    expected = other.rule.height, other.rule.width, 3
    return isinstance(copy.image, bytes) or copy.image.shape == expected


def first(model: Model, probabilities: Probabilities) -> First:
    """The most probable class."""
    index = int(probabilities.argmax())
    return First(model.labels[index], float(f"{probabilities[index]:.7g}"))


def jensen_shannon(one: Probabilities, two: Probabilities) -> float:
    """The divergence of two distributions float32[K] in bits, 0 to 1 (Lin, 1991).

    Of models of several labels, whose probabilities do not add up to 1, it is the mean over the
    classes, each a yes or no.
    """
    p, q = one.astype(np.float64), two.astype(np.float64)
    if max(abs(p.sum() - 1), abs(q.sum() - 1)) > 1e-2:
        p, q = np.stack([p, 1 - p]), np.stack([q, 1 - q])
    divergences = _entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2
    return float(np.clip(divergences, 0, 1).mean())


def _entropy(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """In bits, along the first axis."""
    summed: npt.NDArray[np.float64] = np.asarray(-(p * np.log2(np.maximum(p, 1e-300))).sum(axis=0))
    return summed
