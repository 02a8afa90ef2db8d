"""Whether one more image can be answered in time, decided before any work is done for it.

In: how many images a request has, of which client, and how many seconds it may take. Out: a
`Ticket`, or `TooBusy` with the seconds after which the queue has become short enough. As with CoDel
(RFC 8289), what counts is the delay in the queue, never its length, and it is the delay of this
client: a client that asks for little is admitted while another client, which fills the queue, is
refused. Each model has its own admission.
"""

import math
import time
from collections.abc import Callable
from typing import Self

from server.problems import ModelNotReady, TooBusy
from server.serving.load import Load

# The part of a deadline that the expected delay may take; the rest covers variation, so that nearly
# all admitted requests are answered in time. A longer queue would only make every answer later, and
# not give more answers.
MARGIN = 0.5
# Images that are admitted while no rate has been measured yet.
UNMEASURED = 64
# A model with work to do and without an answer for so long is stuck and not just busy.
STUCK_SECONDS = 3.0


class Admission:
    """Counts the images that are under way to one model, and how fast it answers them."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.load = Load(clock)

    @property
    def waiting(self) -> int:
        """Images that have been admitted and have no answer yet."""
        return round(self.load.waiting)

    def enter(self, images: int, seconds: float, client: str = "") -> "Ticket":
        """Admit a request; use the ticket as a context manager. Raises as `check`."""
        self.check(images, seconds, client)
        self.load.admit(client, images)
        return Ticket(self.load, client, images)

    def check(self, images: int, seconds: float, client: str = "") -> None:
        """Raise what `enter` would raise now: `TooBusy`, or `ModelNotReady` if the model is stuck.

        A lone request is always admitted: there is nothing to wait for.
        """
        if self.waiting == 0:
            return
        ahead = self.load.ahead(client, images)
        rate = self.load.rate
        if rate == 0:
            if ahead > UNMEASURED:
                raise TooBusy(f"{self.waiting} images wait for the first answer; try again")
            return
        excess = ahead / rate - MARGIN * seconds
        if excess <= 0:
            return
        idle = self.load.idle
        if idle > max(STUCK_SECONDS, 2 * self.waiting / rate):
            raise ModelNotReady(f"model {self.name!r} has not answered anything for {idle:.1f} s")
        raise TooBusy(
            f"{self.waiting} images wait for model {self.name!r}, which answers {rate:.3g} per "
            f"second: not within the {seconds:g} s that the request may take",
            max(1, math.ceil(excess)),
        )


class Ticket:
    """One request in a model's queue; images that are not done at its end count as given up."""

    def __init__(self, load: Load, client: str, images: int) -> None:
        self._load = load
        self._client = client
        self._images = images  # that are neither done nor refused
        self._begun = 0

    def begin(self) -> None:
        """One image has become pixels, and waits for the model alone."""
        self._begun += 1
        self._load.begin(1)

    def done(self) -> None:
        """One image, which had begun, has got its answer from the model."""
        self._images -= 1
        self._begun -= 1
        self._load.end(self._client, 1, begun=True, done=1)

    def refused(self) -> None:
        """One image is answered without the model."""
        self._images -= 1
        self._load.end(self._client, 1, begun=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._begun:
            self._load.end(self._client, self._begun, begun=True)
        if self._images > self._begun:
            self._load.end(self._client, self._images - self._begun, begun=False)
        self._images = self._begun = 0
