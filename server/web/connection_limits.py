"""What all connections of this process may take together: their number, and unfinished heads; and
how many requests each of them may bring.

In: each connection as it opens, waits, holds bytes of a head, begins a request, closes. Out: where
a limit is passed, the one that has waited longest for its client makes room. A connection with a
request under way never has to.
"""

from typing import Protocol

# 256 heads of the largest size, or 65,000 of a usual one that are cut after some of their bytes.
MAX_BYTES_OF_HEADS = 16 * 2**20


class Waiting(Protocol):
    """A connection, as far as it concerns the limits."""

    def make_room(self) -> None:
        """End it."""


class ConnectionLimits:
    """The connections that are `open`; at most `most` are.

    Each is closed after `requests` of them (0: never), so that a client opens another one and a
    balancer of connections chooses anew.
    """

    def __init__(
        self, most: int, max_bytes_of_heads: int = MAX_BYTES_OF_HEADS, *, requests: int = 0
    ) -> None:
        self.most = most
        self.requests = requests
        self.max_bytes_of_heads = max_bytes_of_heads
        self._bytes_of_heads = 0
        self.open: set[Waiting] = set()
        # Both in the order in which they began to wait.
        self.waiting: dict[Waiting, None] = {}
        self._heads: dict[Waiting, int] = {}

    def opens(self, connection: Waiting) -> bool:
        """Whether there is room for one more, perhaps that of another."""
        if len(self.open) >= self.most:
            longest = next(iter(self.waiting), None)
            if longest is None:
                return False
            self.closes(longest)
            longest.make_room()
        self.open.add(connection)
        self.waiting[connection] = None
        return True

    def closes(self, connection: Waiting) -> None:
        """It takes nothing any more."""
        self.open.discard(connection)
        self.begins(connection)

    def waits(self, connection: Waiting) -> None:
        """It has answered, and waits for the next request."""
        if connection in self.open:
            self.waiting[connection] = None

    def holds(self, connection: Waiting, count: int) -> bool:
        """It holds `count` bytes of a head; whether they are the first."""
        before = self._heads.get(connection, 0)
        self._heads[connection] = count
        self._bytes_of_heads += count - before
        while self._bytes_of_heads > self.max_bytes_of_heads:
            longest = next(iter(self._heads))
            self.begins(longest)
            longest.make_room()
        return before == 0

    def begins(self, connection: Waiting) -> None:
        """It waits no more for a head."""
        self.waiting.pop(connection, None)
        if self._heads:
            self._bytes_of_heads -= self._heads.pop(connection, 0)
