"""Ends the process of a model that stood still for so long that Triton has given its call up.

In: where each call begins and ends. Out: nothing, or the end of this process before it answers.

Triton's Python backend (python_be.cc, stub_launcher.cc) fails a call whose process, the stub, has
shown no sign of life for 1 s, and sends it the next batch. A process that was only stopped, as when
a virtual machine pauses, then goes on with the call that was given up, and Triton takes its answer
for that of the next batch: a client gets the probabilities of another client's image, or Triton
crashes. The process cannot know what Triton did meanwhile; without it the supervisor starts Triton
again.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator

TICK_S = 0.1
# The stub shows a sign of life three times a second, so that a pause of 0.7 s can be enough.
LEAST_S = 0.6
GIVEN_UP_S = 0.98  # the age at which a call may have been given up
# A call that came while the process stood still begins within this time after it.
QUEUED_S = 0.05


class Standstill:
    """Watches one process, whose calls come one after the other."""

    def __init__(self) -> None:
        """Start a thread that notices when the process stands still."""
        # Triton waits by the clock of the day, too.
        self._seen = time.time()
        self._lasted = 0.0  # the last standstill, in seconds
        self._until = float("-inf")  # its end
        self._began: float | None = None  # the call under way
        threading.Thread(target=self._watch, daemon=True).start()

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Around all that a call does; the process ends if Triton may have given the call up."""
        now = self._look()
        if now - self._until < QUEUED_S and self._lasted >= GIVEN_UP_S:
            self._end()
        self._began = now
        try:
            yield
        finally:
            self._check()
            self._began = None

    def _watch(self) -> None:
        while True:
            time.sleep(TICK_S)
            self._check()

    def _check(self) -> None:
        now = self._look()
        began = self._began
        if began is not None and self._until > began and now - began >= GIVEN_UP_S:
            self._end()

    def _look(self) -> float:
        now = time.time()
        if now - self._seen >= LEAST_S + TICK_S:
            self._lasted, self._until = now - self._seen, now
        self._seen = now
        return now

    def _end(self) -> None:
        # In the form of Triton's own lines, by which the supervisor knows an error.
        print(
            f"E{time.strftime('%m%d %H:%M:%S')} {os.getpid()} standstill.py:1] a model's process "
            f"stood still for {self._lasted:.1f} s with a call under way and ends, since its "
            "answer could reach another client",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)
