"""CPU time and memory of a process and of those that it has started, for Prometheus.

In: the id of a process. Out: what each of them uses. Uses only Linux's /proc and the standard
library, since NVIDIA's image has this module too; on other systems nothing is found and nothing is
reported.
"""

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Usage:
    """CPU time and memory of one process."""

    pid: int
    name: str
    cpu_seconds: float  # of user and system together
    memory_bytes: int  # resident; pages that several share count for each


def usage(pid: int, *, without: str = "") -> list[Usage]:
    """The process and its descendants, except programs called `without` and their descendants."""
    children: dict[int, list[Usage]] = defaultdict(list)
    root = None
    for parent, found in _all():
        children[parent].append(found)
        if found.pid == pid:
            root = found
    if root is None:
        return []
    known = [root]
    for each in known:  # the list grows meanwhile
        known += [child for child in children[each.pid] if not without or child.name != without]
    return known


def _all() -> Iterator[tuple[int, Usage]]:
    """Every process with the id of its parent; see proc(5)."""
    ticks = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0
    for file in PROC.glob("[0-9]*/stat"):
        try:
            text = file.read_text(errors="replace")
        except OSError:
            continue  # it has ended
        # The name may hold blanks and brackets; the last bracket ends it.
        head, _, rest = text.rpartition(")")
        fields = rest.split()
        cpu = (int(fields[11]) + int(fields[12])) / ticks
        memory = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
        pid, _, name = head.partition(" (")
        yield int(fields[1]), Usage(int(pid), name, cpu, memory)
