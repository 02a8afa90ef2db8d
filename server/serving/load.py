"""How much work is under way, for which client, and how fast it gets done, in one stage.

In: pieces of work that are admitted, begun, done or given up. Out: the seconds after which a
client's next piece would be done. The rate is measured, never configured: work done per second in
which there was something to do, with the last seconds counting most. Work that was refused or given
up does not count as done, and time in which no work was begun does not count as busy.
"""

import math
import time
from collections.abc import Callable

# Busy seconds after which work done counts 1/e in the measured rate.
MEMORY = 2.0


class Load:
    """The work of one stage, in a unit of its own: images, or seconds of CPU."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, rate: float = 0.0) -> None:
        """`rate` is the assumed rate before any work was done; 0 if none is assumed."""
        self.waiting = 0.0  # admitted, and neither done nor given up
        self._clock = clock
        self._rate = rate
        self._by_client: dict[str, float] = {}
        self._begun = 0.0  # the part of `waiting` that was begun
        self._done = 0.0
        self._busy = 0.0
        self._since = 0.0  # when the last work was done, or when an idle time ended

    @property
    def rate(self) -> float:
        """Work done per busy second; 0 if that is not known."""
        return self._done / self._busy if self._busy else self._rate

    @property
    def idle(self) -> float:
        """Seconds for which work has been under way and none was done."""
        return self._clock() - self._since if self._begun > 0 else 0.0

    def ahead(self, client: str, amount: float) -> float:
        """The work that will be done when `amount` more work of this client is done.

        Queues are fair (server/serving/fairness.py): before the client's last piece is done, every
        other client gets as much as this client, or all that the other client asks for.
        """
        own = self._by_client.get(client, 0.0) + amount
        clients = len(self._by_client) + (client not in self._by_client)
        return min(self.waiting + amount, own * clients)

    def admit(self, client: str, amount: float) -> None:
        """Note that so much work has been accepted."""
        self.waiting += amount
        self._by_client[client] = self._by_client.get(client, 0.0) + amount

    def begin(self, amount: float) -> None:
        """Note that so much work is being done, or waits only for this stage."""
        if self._begun <= 0:
            self._since = self._clock()
        self._begun += amount

    def end(self, client: str, amount: float, *, begun: bool, done: float = 0.0) -> None:
        """Note the end of so much work; `done` is how much of it was done, 0 if it was given up."""
        self.waiting = max(0.0, self.waiting - amount)
        left = self._by_client.get(client, 0.0) - amount
        if left > 1e-9:  # sums of fractions are rounded
            self._by_client[client] = left
        else:
            self._by_client.pop(client, None)
        if not self._by_client:
            self.waiting = 0.0
        if not begun:
            return
        self._begun = max(0.0, self._begun - amount) if self.waiting else 0.0
        if not done:
            return
        now = self._clock()
        # A long standstill is forgotten soon after it has ended.
        spent = max(1e-6, now - self._since)
        kept = math.exp(-spent / MEMORY)
        self._busy = self._busy * kept + min(spent, MEMORY)
        self._done = self._done * kept + done
        self._since = now
