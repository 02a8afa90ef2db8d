"""The bytes of request bodies that are held in memory, counted over all requests.

In: the bytes of one body as they arrive. Out: `BodyTooLarge` or `TooBusy` where a limit is passed.
A request that was given up goes on counting as long as a thread still works on its image.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from server.problems import BodyTooLarge, TooBusy


class Buffers:
    """The limits, and how many bytes the bodies that are held now have together."""

    def __init__(self, max_bytes: int, max_held: int, seconds: float) -> None:
        """`max_bytes` of one body, `max_held` of all; `seconds` that one may take to arrive."""
        self.max_bytes = max_bytes
        self.max_held = max_held
        self.seconds = seconds
        self.held = 0

    @contextlib.contextmanager
    def hold(self) -> Iterator["Hold"]:
        """A body is read and held inside, and for as long as somebody else keeps it."""
        hold = Hold(self)
        try:
            yield hold
        finally:
            hold.release()


@dataclass
class Hold:
    """The share of one request in what is held: until each that keeps it has released it."""

    buffers: Buffers
    size: int = 0
    keepers: int = 1

    def keep(self) -> None:
        """Hold it beyond the end of the request, until one more `release`."""
        self.keepers += 1

    def release(self) -> None:
        """Let go of what the request, or a `keep`, has held."""
        self.keepers -= 1
        if self.keepers == 0:
            self.buffers.held -= self.size

    def take(self, count: int) -> None:
        """Account for `count` more bytes. Raises `BodyTooLarge` or `TooBusy`."""
        self.size += count
        self.buffers.held += count
        if self.size > self.buffers.max_bytes:
            raise BodyTooLarge(
                f"the body has more than the {self.buffers.max_bytes} bytes that are accepted"
            )
        if self.buffers.held > self.buffers.max_held:
            raise TooBusy("the requests under way fill the memory that they may take; try again")
