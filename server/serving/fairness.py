"""A queue that gives each client its share: start-time fair queueing.

In: work, with its client and its cost. Out: the work that is next. Each piece of work is tagged
with a virtual start time: the finish of its client's previous work, or now, if there was none. The
work with the lowest tag goes first (Goyal, Vin and Cheng, SIGCOMM 1996). So while others wait, a
client gets the same share of the cost as each of them, whatever it asks for; a client that has
asked for little goes before the work of one that has asked for much; and a lone client gets
everything. Deficit round robin gives the same shares, but lets a new client wait for a round.
"""

import heapq
import itertools
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

MANY = 1000  # clients without waiting work that are remembered


class FairQueue(Generic[T]):
    """The waiting work of all clients. Cost is in any unit, one for the whole queue."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, str, T]] = []
        self._number = itertools.count()  # of equal tags, the first that came goes first
        self._now = 0.0  # virtual time: the tag of the work taken last
        self._finish: dict[str, float] = {}  # the virtual time when all work of a client is done
        self._waiting: dict[str, int] = {}  # pieces of work, by client

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def clients(self) -> int:
        """How many clients have work that waits."""
        return len(self._waiting)

    def push(self, client: str, cost: float, work: T) -> None:
        """Add work to the queue."""
        start = max(self._now, self._finish.get(client, 0.0))
        self._finish[client] = start + cost
        self._waiting[client] = self._waiting.get(client, 0) + 1
        heapq.heappush(self._heap, (start, next(self._number), client, work))

    def work(self) -> Iterator[T]:
        """All waiting work, in no order."""
        return (work for *_, work in self._heap)

    def peek(self) -> T:
        """The next work. Raises `IndexError` if nothing waits."""
        return self._heap[0][3]

    def pop(self) -> T:
        """Take the next work. Raises `IndexError` if nothing waits."""
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
        """Let all clients begin anew, since nothing waits and nothing is being done."""
        self._now = 0.0
        self._finish.clear()

    def _forget(self) -> None:
        """Of the clients without waiting work, keep only those that have had the most."""
        most = heapq.nlargest(MANY, self._finish.items(), key=lambda item: item[1])
        here = ((who, self._finish[who]) for who in self._waiting if who in self._finish)
        self._finish = dict((*most, *here))

    def charge(self, client: str, cost: float) -> None:
        """Count cost that a client's work took beyond its price against the next work."""
        if client in self._finish:
            self._finish[client] += cost
