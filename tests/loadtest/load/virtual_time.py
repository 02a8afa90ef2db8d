"""An event loop whose clock stands still while code runs, and jumps to the next timer otherwise.

What is timed by it takes exactly as long as it says, on however busy a machine. In: a coroutine
without input or output of the system. Out: what it returns.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Jumping(selectors.DefaultSelector):
    """Where nothing is ready, it does not wait: the time is a later one."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "all wait for something that no timer will bring"
            self.now += timeout
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run(work: Callable[[Callable[[], float]], Coroutine[Any, Any, T]]) -> T:
    """Run to the end; `work` is given the clock, which reads seconds since the start."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(work(runner.get_loop().time))
