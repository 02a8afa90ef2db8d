"""A queue that gives each client its share: start-time fair queueing.

In: work, with its client and its cost. Out: the work that is next. Each piece of work is tagged
with a virtual start time: the finish of its client's work before it, or now, if there was none. The
lowest tag goes first (Goyal, Vin and Cheng, SIGCOMM 1996). So while others wait, a client gets the
same share of the cost as each of them, whatever it asks for; a client that has asked for little
goes before the work of one that has asked for much; and a lone client gets everything. Deficit
round robin gives the same shares, but lets one that comes new wait for a round.
"""

import heapq
import itertools
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

MANY = 1000  # clients without waiting work that are remembered


class FairQueue(Generic[T]):
    """The waiting work of all clients. Cost is in any unit; all of one queue in the same."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, str, T]] = []
        self._number = itertools.count()  # of as early, what came first
        self._now = 0.0  # virtual time: the tag of what was taken last
        self._finish: dict[str, float] = {}  # when all that a client has asked for is done
        self._waiting: dict[str, int] = {}  # pieces of work, by client

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def clients(self) -> int:
        """How many have work that waits."""
        return len(self._waiting)

    def push(self, client: str, cost: float, work: T) -> None:
        """Let the work wait."""
        start = max(self._now, self._finish.get(client, 0.0))
        self._finish[client] = start + cost
        self._waiting[client] = self._waiting.get(client, 0) + 1
        heapq.heappush(self._heap, (start, next(self._number), client, work))

    def work(self) -> Iterator[T]:
        """All that waits, in no order."""
        return (work for *_, work in self._heap)

    def peek(self) -> T:
        """What is next. Raises `IndexError` if nothing waits."""
        return self._heap[0][3]

    def pop(self) -> T:
        """Take what is next. Raises `IndexError` if nothing waits."""
        self._now, _, client, work = heapq.heappop(self._heap)
        left = self._waiting[client] - 1
        if left:
            self._waiting[client] = left
        else:
            del self._waiting[client]
        if len(self._finish) > 2 * MANY:
            self._forget()
        return work

    def rest(self) -> None:
        """Nothing waits and nothing is being done: all clients begin anew."""
        self._now = 0.0
        self._finish.clear()

    def _forget(self) -> None:
        """Keep of those who have nothing here those who have had the most."""
        most = heapq.nlargest(MANY, self._finish.items(), key=lambda item: item[1])
        here = ((who, self._finish[who]) for who in self._waiting if who in self._finish)
        self._finish = dict((*most, *here))

    def charge(self, client: str, cost: float) -> None:
        """What a client's work took beyond its cost counts against its next work."""
        if client in self._finish:
            self._finish[client] += cost
