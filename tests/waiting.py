"""Patience for tests: poll with a deadline, measure while the machine goes on, stop a process.

In: a condition, a measurement, or the id of a process that the test started. Out: the value of the
one or the other, or an assertion that fails after the deadline.
"""

import contextlib
import os
import signal
import subprocess
import threading
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


def steady(measure: Callable[[], T], longest: float = 0.2, times: int = 5) -> T:
    """What `measure` returns where the machine did not stand still for `longest` seconds meanwhile.

    A shared machine stands still for a second at times, and what was measured then says nothing of
    what is tested: rates are too low, and after more than a second Triton takes the processes of
    its models for dead. A thread tells, which only sleeps: it knows nothing of what is tested. The
    last of `times` measurements counts in any case.
    """
    for _ in range(times - 1):
        with standstill() as longest_yet:
            found = measure()
        if longest_yet() < longest:
            return found
    return measure()


@contextlib.contextmanager
def standstill() -> Iterator[Callable[[], float]]:
    """Tells for how many seconds, at most, this machine has let a thread sleep on."""
    most, pause, enough = 0.0, 0.01, threading.Event()

    def watch() -> None:
        nonlocal most
        before = time.monotonic()
        while not enough.wait(pause):
            now = time.monotonic()
            most, before = max(most, now - before - pause), now

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: most
    finally:
        enough.set()
        thread.join()


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
