"""How much memory this process may take: its container's limit, or the machine's memory.

In: the control groups of Linux. Out: bytes. On systems without them it is the machine's memory.
"""

import contextlib
from pathlib import Path

import psutil

GROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def memory_limit(groups: Path = GROUPS, membership: Path = MEMBERSHIP) -> int:
    """The lowest limit of the groups that the process is in, and of the machine."""
    limits = [int(psutil.virtual_memory().total)]
    with contextlib.suppress(OSError):
        for line in membership.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:  # version 2
                limits += _limits(groups, path, "memory.max")
            elif "memory" in controllers.split(","):
                limits += _limits(groups / "memory", path, "memory.limit_in_bytes")
    return min(limits)


def _limits(root: Path, path: str, name: str) -> list[int]:
    """The limits of a group and of the groups above it; in a container the group is the root."""
    found = []
    folder = root / path.lstrip("/")
    for group in (folder, *folder.parents):
        if not group.is_relative_to(root):
            break
        with contextlib.suppress(OSError, ValueError):  # not there, or "max"
            found.append(int((group / name).read_text()))
    return found
