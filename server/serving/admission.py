"""Whether one more image can be answered in time, told before any work is done for it.

In: how many images a request has and how many seconds it may take. Out: a `Ticket`, or `TooBusy`
with the seconds after which the queue has become short enough. The service rate is measured, never
configured: images answered per second in which there was something to do, with the last seconds
counting most. One gate stands before each model.
"""

import math
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from server.problems import ModelNotReady, TooBusy

# Busy seconds after which an answer counts 1/e in the measured rate.
MEMORY = 2.0
# Of a deadline: the rest is for what varies, so that nearly all that is admitted is in time. A
# longer queue would only make every answer later, not more of them.
MARGIN = 0.5
# Admitted while nothing has been measured yet.
UNMEASURED = 64
# With work to do and without an answer for so long, the model is stuck and not just busy.
STUCK_SECONDS = 3.0


class Gate:
    """Counts the images that are under way to one model, and how fast they get done."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.waiting = 0
        self._clock = clock
        self._done = 0.0
        self._busy = 0.0
        self._since = 0.0  # the last answer, or when there was something to do again

    def enter(self, images: int, seconds: float) -> "Ticket":
        """Admit a request; use the ticket as a context manager. Raises as `check`."""
        self.check(images, seconds)
        if self.waiting == 0:
            self._since = self._clock()
        self.waiting += images
        return Ticket(self, images)

    def check(self, images: int, seconds: float) -> None:
        """Raise what `enter` would raise now: `TooBusy`, or `ModelNotReady` if nothing moves.

        A lone request is always admitted: there is nothing to wait for.
        """
        if self.waiting == 0:
            return
        ahead = self.waiting + images
        if self._done == 0:
            if ahead > UNMEASURED:
                raise TooBusy(f"{self.waiting} images wait for the first answer; try again")
            return
        rate = self._done / self._busy
        excess = ahead / rate - MARGIN * seconds
        if excess <= 0:
            return
        idle = self._clock() - self._since
        if idle > max(STUCK_SECONDS, 2 * self.waiting / rate):
            raise ModelNotReady(f"model {self.name!r} has not answered anything for {idle:.1f} s")
        raise TooBusy(
            f"{self.waiting} images wait for model {self.name!r}, which answers {rate:.3g} per "
            f"second: not within the {seconds:g} s that the request may take",
            max(1, math.ceil(excess)),
        )

    def leave(self, images: int, *, answered: bool) -> None:
        """Called by the ticket."""
        self.waiting -= images
        if not answered:
            return
        now = self._clock()
        # A long standstill is forgotten soon after it has ended.
        spent = max(1e-6, now - self._since)
        kept = math.exp(-spent / MEMORY)
        self._busy = self._busy * kept + min(spent, MEMORY)
        self._done = self._done * kept + images
        self._since = now


class Ticket:
    """The place of one request in the queue of a gate; what is not done at the end gave up."""

    def __init__(self, gate: Gate, images: int) -> None:
        self._gate = gate
        self._images = images

    def done(self) -> None:
        """One image has got its answer."""
        self._images -= 1
        self._gate.leave(1, answered=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._gate.leave(self._images, answered=False)
