"""The event loop of the load tests: uvloop where it exists, as it takes half of the CPU time."""

from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

try:
    import uvloop
except ImportError:  # it does not exist for Windows
    import asyncio

    def run(work: Coroutine[Any, Any, T]) -> T:
        """Run to the end; what it returns."""
        return asyncio.run(work)
else:

    def run(work: Coroutine[Any, Any, T]) -> T:
        """Run to the end; what it returns."""
        return uvloop.run(work)
