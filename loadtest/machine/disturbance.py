"""Whether other programs used this machine during a window.

In: the processes that take part in the measurement. Out, for a window: the cores that other
programs took, the cores that the hypervisor gave to other guests, and the pressure that the kernel
reports. The time of other programs is the machine's busy time minus the time of our own processes.
The kernel's pressure (PSI) alone does not suffice: when another program keeps one core of two busy,
it is only 2 %; and it also rises when our own threads outnumber the cores.
"""

import contextlib
import dataclasses
import os
import re
import time
from pathlib import Path

import psutil

from loadtest.servers.processes import Watched

FOREIGN_LIMIT = 0.05  # of all cores
PRESSURE = Path("/proc/pressure/cpu")
CGROUP = Path("/sys/fs/cgroup/cpu.stat")


@dataclasses.dataclass(frozen=True)
class Disturbance:
    """What happened on the machine during a window; None where the system does not tell."""

    foreign_cores: float | None  # cores that other programs took
    steal_cores: float | None  # cores that the hypervisor gave to other guests
    pressure: float | None  # share of the time in which any thread, also ours, waited for a core
    throttled: float | None  # share of the time in which the CPU limit of our cgroup throttled us

    def reason(self, machine_cores: int = 0, limit: float = FOREIGN_LIMIT) -> str:
        """Why the window does not count; "" if it counts.

        `limit` is the allowed share of all cores for other programs, and also the allowed share of
        the time in which our processes were throttled.
        """
        machine_cores = machine_cores or psutil.cpu_count() or 1
        if self.foreign_cores is not None and self.foreign_cores > limit * machine_cores:
            return f"other programs took {self.foreign_cores:.2f} cores of {machine_cores}"
        if self.steal_cores is not None and self.steal_cores > limit * machine_cores:
            return f"other guests of the hypervisor took {self.steal_cores:.2f} cores"
        if self.throttled is not None and self.throttled > limit:
            return f"a CPU limit held the servers back for {self.throttled:.0%} of the time"
        return ""


@dataclasses.dataclass(frozen=True)
class _Reading:
    at: float
    busy: float  # core seconds of all programs since the machine was started
    own: float
    steal: float
    pressure: float | None  # seconds
    throttled: float | None


class Watch:
    """Reads the counters when a window begins and when it ends."""

    def __init__(self, servers: Watched) -> None:
        self._servers = servers
        self._began: _Reading | None = None
        self.found: Disturbance | None = None

    def begin(self) -> None:
        """The window begins now."""
        self._began = self._read()

    def end(self) -> None:
        """The window ends now."""
        before, after = self._began, self._read()
        if before is None:
            return
        seconds = after.at - before.at
        own = after.own - before.own

        def share(name: str) -> float | None:
            first, last = getattr(before, name), getattr(after, name)
            return None if first is None or last is None else round((last - first) / seconds, 4)

        self.found = Disturbance(
            foreign_cores=round(max(0.0, after.busy - before.busy - own) / seconds, 4),
            steal_cores=share("steal"),
            pressure=share("pressure"),
            throttled=share("throttled"),
        )

    def _read(self) -> _Reading:
        times = psutil.cpu_times()
        spent = os.times()
        return _Reading(
            at=time.perf_counter(),
            # Without the time of interrupts: they serve our own packets, and belong to no process.
            busy=times.user + getattr(times, "nice", 0.0) + times.system,
            own=sum(spent[:4]) + self._servers.total_seconds(),
            steal=getattr(times, "steal", 0.0),
            pressure=_pressure(),
            throttled=_throttled(),
        )


def _pressure() -> float | None:
    with contextlib.suppress(OSError):
        if found := re.search(r"^some .*total=(\d+)", PRESSURE.read_text(), re.MULTILINE):
            return int(found[1]) / 1e6
    return None


def _throttled() -> float | None:
    with contextlib.suppress(OSError):
        if found := re.search(r"^throttled_usec (\d+)", CGROUP.read_text(), re.MULTILINE):
            return int(found[1]) / 1e6
    return None
