"""A costly result is computed at most once a second, however many callers ask for it.

In: a function. Out: each caller gets a result that was computed after its call, never an older one.
"""

import asyncio
import time
from collections.abc import Callable

SECONDS = 1.0


class Paced:
    """Calls `make` at most once in `SECONDS`; earlier callers wait, and all get the same result."""

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make = make
        self._made = float("-inf")
        self._next: asyncio.Task[bytes] | None = None

    async def latest(self) -> bytes:
        """The result of a call of `make` now, or up to a second later."""
        if self._next is None:
            wait = self._made + SECONDS - time.monotonic()
            if wait <= 0:
                return self._now()
            self._next = asyncio.create_task(self._later(wait))
        return await asyncio.shield(self._next)  # a caller that gives up does not end it for others

    async def _later(self, seconds: float) -> bytes:
        await asyncio.sleep(seconds)
        self._next = None
        return self._now()

    def _now(self) -> bytes:
        self._made = time.monotonic()
        return self._make()
