"""Patience for tests: poll with a deadline, and stop a process for a while.

In: a condition, or the id of a process that the test started. Out: the condition's value, or an
assertion that fails after the deadline.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

CHECKOUT = Path(__file__).resolve().parent.parent
T = TypeVar("T")


def wait_for(condition: Callable[[], T | None], seconds: float = 60.0, what: str = "") -> T:
    """Poll until `condition` gives something true, and return that; fail after `seconds`.

    The last look begins after these seconds: where the whole machine stood still until then, the
    condition may hold by now.
    """
    deadline = time.monotonic() + seconds
    while True:
        is_over = time.monotonic() >= deadline
        if result := condition():
            return result
        assert not is_over, f"not within {seconds:.0f} s: {what or condition}"
        time.sleep(0.02)


@contextlib.contextmanager
def terminated(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """At the end the process is told to stop, and has to end with status 0 within 30 s."""
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            process.kill()
    assert process.returncode == 0


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """The process is stopped by SIGSTOP, and continued afterwards if it has not ended."""
    os.kill(pid, signal.SIGSTOP)
    try:
        # Its other threads go on until each of them has seen the signal.
        wait_for(lambda: all(map(stands_still, Path(f"/proc/{pid}/task").glob("*/stat"))))
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def stands_still(thread: Path) -> bool:
    """Whether that is stopped; the path is its `stat` in /proc."""
    try:
        return thread.read_text().rpartition(") ")[2][0] == "T"
    except OSError:
        return True  # it has ended
