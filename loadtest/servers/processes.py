"""CPU seconds of every process that takes part, read from /proc.

In: the process id of a gateway that has started its own Triton. Out: user and system time of each
role. The gateway is that process and its workers, its event loop their main threads, which decode
nothing; below it lie tritonserver and, on the local Triton, a stub for each instance of a model, in
which the model runs.
"""

import contextlib
import os
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
ROLES = ("gateway", "event_loop", "triton", "model")  # the event loop is part of the gateway


def cpu_seconds(root: int) -> dict[str, float]:
    """Seconds of each role so far; empty where there is no /proc."""
    found = dict.fromkeys(ROLES, 0.0)
    pids = [root]
    for pid in pids:
        folder = Path(f"/proc/{pid}")
        with contextlib.suppress(OSError):  # it has ended meanwhile, or there is no /proc
            role = _role((folder / "cmdline").read_bytes())
            found[role] += _seconds(folder / "stat")
            if role == "gateway":
                found["event_loop"] += _seconds(folder / f"task/{pid}/stat")
            for children in folder.glob("task/*/children"):
                pids += [int(child) for child in children.read_text().split()]
    return found if any(found.values()) else {}


def own_cpu_seconds() -> float:
    """Seconds of this process, the load generator."""
    return time.process_time()


def _seconds(stat: Path) -> float:
    # The name may hold anything, so what follows is counted from the closing bracket.
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _role(command: bytes) -> str:
    program = command.partition(b"\0")[0]
    if program.endswith(b"triton_python_backend_stub"):
        return "model"
    return "triton" if program.endswith(b"tritonserver") else "gateway"
