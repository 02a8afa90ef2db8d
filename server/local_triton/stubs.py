"""The stubs of a tritonserver: the processes, one per model instance, of its Python backend.

In: a process id. Out: the processes that it has started and that live. psutil reads /proc for that.
NVIDIA's image has no psutil, and no stub either to watch: its launcher does without this file.
"""

import psutil


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
