"""The event loop of a gateway process, and the signals that end it, on every system.

In: what to do at a signal. Out: uvloop's loop where there is one (not on Windows), else asyncio's.
"""

import asyncio
import signal
from collections.abc import Callable

try:
    import uvloop
except ImportError:  # it has no wheel for this system
    uvloop = None  # type: ignore[assignment] # or the module


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A loop for `asyncio.Runner`."""
    return asyncio.new_event_loop() if uvloop is None else uvloop.new_event_loop()


def stop_on_signals(stop: Callable[[], None]) -> None:
    """Call `stop` in the running event loop at SIGINT or SIGTERM."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, stop)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))
