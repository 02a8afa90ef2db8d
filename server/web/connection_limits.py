"""Limits on all connections of this process: their number, the bytes of unfinished heads, and the
requests of each.

In: each connection as it opens, waits, holds bytes of a head, begins a request, closes. Out: where
a limit is passed, the connection that has waited longest for its client is closed. A connection
with a request under way is never closed.
"""

from typing import Protocol

# 256 heads of the largest size, or 65,000 heads of a usual size of which only some bytes have come.
MAX_BYTES_OF_HEADS = 16 * 2**20


class Waiting(Protocol):
    """The part of a connection that the limits use."""

    def make_room(self) -> None:
        """Close the connection."""


class ConnectionLimits:
    """The connections that are open, at most `most`.

    Each connection is closed after `requests` requests (0: never), so that its client opens another
    one and a load balancer chooses again.
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
        """Whether there is room for one more connection, if need be after another one is closed."""
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
        """The connection no longer counts."""
        self.open.discard(connection)
        self.begins(connection)

    def waits(self, connection: Waiting) -> None:
        """The connection has answered, and waits for the next request."""
        if connection in self.open:
            self.waiting[connection] = None

    def holds(self, connection: Waiting, count: int) -> bool:
        """The connection holds `count` bytes of a head; returns whether they are the first."""
        before = self._heads.get(connection, 0)
        self._heads[connection] = count
        self._bytes_of_heads += count - before
        while self._bytes_of_heads > self.max_bytes_of_heads:
            longest = next(iter(self._heads))
            self.begins(longest)
            longest.make_room()
        return before == 0

    def begins(self, connection: Waiting) -> None:
        """The connection no longer waits for a head."""
        self.waiting.pop(connection, None)
        if self._heads:
            self._bytes_of_heads -= self._heads.pop(connection, 0)
