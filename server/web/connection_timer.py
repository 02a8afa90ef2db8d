"""How long a client has for its next action, by a timer that is set as seldom as possible.

In: the seconds that the client has, anew with each of its actions. Out: a call when they are over.
A timer of asyncio that ends before a later deadline is kept, and looks at the clock again then.
"""

import asyncio
import math
from collections.abc import Callable


class ConnectionTimer:
    """Runs only after `set`. Close it at the end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, over: Callable[[], None]) -> None:
        """`over` is called when the seconds are over."""
        self._loop = loop
        self._over = over
        self._deadline = math.inf
        self._handle: asyncio.TimerHandle | None = None

    def set(self, seconds: float) -> None:
        """Give the client so many seconds from now on."""
        self._deadline = self._loop.time() + seconds
        if self._handle is not None and self._handle.when() > self._deadline:
            self._handle.cancel()
            self._handle = None
        if self._handle is None:
            self._handle = self._loop.call_at(self._deadline, self._look_at_clock)

    def stop(self) -> None:
        """Give the client any time."""
        self._deadline = math.inf

    def close(self) -> None:
        """Call nothing any more, until the next `set`."""
        if self._handle is not None:
            self._handle.cancel()

    def _look_at_clock(self) -> None:
        self._handle = None
        if self._deadline == math.inf:
            return
        if self._loop.time() < self._deadline:
            self._handle = self._loop.call_at(self._deadline, self._look_at_clock)
        else:
            self._over()
