"""Foreign load is seen on the real machine, and ours is not taken for it."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
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
        try:
            yield process.pid
        finally:
            process.kill()


def watched(*servers: dict[str, int]) -> Iterator[Disturbance]:
    """A window in which this process sleeps, as it looks where these servers are ours."""
    watches = [Watch(Watched(each)) for each in servers]
    for watch in watches:
        watch.begin()
    time.sleep(SECONDS)
    for watch in watches:
        watch.end()
        assert watch.found is not None
        yield watch.found


def test_a_foreign_core_is_seen_and_our_own_is_not() -> None:
    """One spinning process, as a server of ours and as a stranger in the same window.

    Other programs may use the machine at the same time, so the two differ by what the process took
    by its own account: a core, or the part of one that a busy machine leaves to it. The process is
    a child of this one: only what `Watched` names counts as ours.
    """
    with spinner() as pid:
        process = psutil.Process(pid)
        began, before = time.perf_counter(), sum(process.cpu_times()[:2])
        ours, theirs = watched({"gateway": pid}, {})
        took = sum(process.cpu_times()[:2]) - before
        cores = took / (time.perf_counter() - began)
        assert ours.foreign_cores is not None
        assert theirs.foreign_cores is not None
    assert cores > 0.08
    assert theirs.foreign_cores - ours.foreign_cores == pytest.approx(cores, rel=0.1, abs=0.04)
    assert theirs.reason(2).startswith(f"other programs took {theirs.foreign_cores:.2f} cores of 2")


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
