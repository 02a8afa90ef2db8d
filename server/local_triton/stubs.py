"""The stubs of a tritonserver: the processes, one per model instance, of its Python backend.

In: a process id. Out: the processes that it has started and that live, which model each of them
runs, and the CPU time that they use. psutil reads /proc for that. NVIDIA's image has no psutil, and
also no stub to watch: its launcher does not need this module.
"""

import contextlib
import re
from collections.abc import Iterable

import psutil

INSTANCE = re.compile(r"(.+)_\d+_\d+$")  # of Triton's names of instances: MODEL_GROUP_NUMBER


def children(pid: int) -> list[int]:
    """The living child processes of `pid`."""
    try:
        found = psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        return []
    return [child.pid for child in found if is_alive(child.pid)]


def is_alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def of_model(pid: int, model: str) -> list[int]:
    """The stubs of tritonserver `pid` that run instances of this model."""
    return [child for child in children(pid) if model_of(child) == model]


def model_of(stub: int) -> str | None:
    """The model of which a stub runs an instance; None if the process is no stub."""
    try:
        arguments = psutil.Process(stub).cmdline()
    except psutil.NoSuchProcess:
        return None
    # Its last arguments are the instance's name and the folder of the backend.
    found = INSTANCE.match(arguments[-2]) if len(arguments) > 2 else None
    return found[1] if found else None


def cpu_seconds(pids: Iterable[int], *, with_children: bool) -> float:
    """User and system time of those of these processes that are alive.

    `with_children`: also of their child processes; the backend `jax` computes in one.
    """
    total = 0.0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            others = process.children(recursive=True) if with_children else []
            for each in (process, *others):
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = each.cpu_times()
                    total += times.user + times.system
    return total
