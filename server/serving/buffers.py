"""The bytes of request bodies that are held in memory, counted over all requests.

In: the bytes of one body as they arrive. Out: `BodyTooLarge` or `TooBusy` where a limit is passed.
A request that was given up still counts as long as a thread works on its image. One client may hold
at most as much as is left free, so there is always room for another client (dynamic thresholds:
Choudhury and Hahne, IEEE/ACM Transactions on Networking 1998).
"""

from collections import Counter
from dataclasses import dataclass
from typing import Self

from server.problems import BodyTooLarge, TooBusy


class Buffers:
    """The limits, and how many bytes the bodies that are held now have together."""

    def __init__(self, max_bytes: int, max_held: int, seconds: float) -> None:
        """`max_bytes` of one body, `max_held` of all; `seconds` that one may take to arrive."""
        self.max_bytes = max_bytes
        self.max_held = max_held
        self.seconds = seconds
        self.held = 0
        self.by_client: Counter[str] = Counter()

    def hold(self, client: str = "") -> "Hold":
        """A context for one body: the body counts inside it, and longer if `keep` was called."""
        return Hold(self, client)


@dataclass
class Hold:
    """The bytes of one request, which count until it and every `keep` have released them."""

    buffers: Buffers
    client: str = ""
    size: int = 0
    keepers: int = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def keep(self) -> None:
        """Hold the bytes beyond the end of the request, until one more `release`."""
        self.keepers += 1

    def release(self) -> None:
        """End the hold of the request, or of one `keep`."""
        self.keepers -= 1
        if self.keepers == 0:
            self._add(-self.size)

    def take(self, count: int) -> None:
        """Account for `count` more bytes. Raises `BodyTooLarge` or `TooBusy`."""
        buffers = self.buffers
        self.size += count
        self._add(count)
        if self.size > buffers.max_bytes:
            raise BodyTooLarge(
                f"the body has more than the {buffers.max_bytes} bytes that are accepted"
            )
        if buffers.held > buffers.max_held:
            raise TooBusy("the requests under way fill the memory that they may take; try again")
        # A lone request may take all bytes.
        mine = buffers.by_client[self.client]
        if mine > max(self.size, buffers.max_held - buffers.held):
            raise TooBusy(
                f"the requests of this client under way have {mine} bytes, as many as are left for "
                "all others; try again"
            )

    def _add(self, count: int) -> None:
        buffers = self.buffers
        buffers.held += count
        buffers.by_client[self.client] += count
        if not buffers.by_client[self.client]:
            del buffers.by_client[self.client]
