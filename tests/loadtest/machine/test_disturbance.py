"""Foreign load is seen on the real machine, and ours is not taken for it."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from loadtest.machine.disturbance import Disturbance, Watch
from loadtest.servers.processes import Watched

SPIN = "print('up', flush=True)\nwhile True: pass"
SECONDS = 2.0


@contextlib.contextmanager
def spinner() -> Iterator[int]:
    """A process that takes a core; its process id."""
    with subprocess.Popen([sys.executable, "-c", SPIN], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def watched(servers: dict[str, int]) -> Disturbance:
    """A window in which this process sleeps."""
    watch = Watch(Watched(servers))
    watch.begin()
    time.sleep(SECONDS)
    watch.end()
    assert watch.found is not None
    return watch.found


def test_a_foreign_core_is_seen_and_our_own_is_not() -> None:
    """One spinning process, once as a server of ours and once as a stranger, in turn.

    Other tests may use the machine at the same time, so the two are compared with each other. The
    process is a child of this one: only what `Watched` names counts as ours.
    """
    with spinner() as pid:
        before = os.times()
        ours = watched({"gateway": pid})
        theirs = watched({})
        assert ours.foreign_cores is not None
        assert theirs.foreign_cores is not None
        assert sum(os.times()[:2]) - sum(before[:2]) < 1
    # A core, or the half of one that a busy machine leaves to it.
    assert theirs.foreign_cores > 0.4
    assert theirs.reason(2).startswith(f"other programs took {theirs.foreign_cores:.2f} cores of 2")
    assert ours.foreign_cores < theirs.foreign_cores - 0.3 or theirs.foreign_cores > 1.5


QUIET = Disturbance(foreign_cores=0.03, steal_cores=0.0, pressure=0.6, throttled=0.0)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (QUIET, ""),
        # Our own threads beyond the cores raise the pressure; alone it says nothing.
        (Disturbance(0.1, 0.0, 1.0, None), ""),
        (Disturbance(0.11, 0.0, 0.0, None), "other programs took 0.11 cores of 2"),
        (Disturbance(0.0, 0.3, 0.0, None), "other guests of the hypervisor took 0.30 cores"),
        (Disturbance(0.0, 0.0, 0.0, 0.2), "a CPU limit held the servers back for 20% of the time"),
        (Disturbance(None, None, None, None), ""),
    ],
)
def test_the_limits(found: Disturbance, reason: str) -> None:
    assert found.reason(2) == reason


def test_a_window_that_never_began_tells_nothing() -> None:
    watch = Watch(Watched({}))
    watch.end()
    assert watch.found is None
