"""The processes of servers, and the CPU time of each role.

In: process ids of servers, by name. Out: user and system seconds by role. A server is a process and
all its descendants. The event loops of a gateway are also counted on their own: they are the main
threads of its workers, and decode nothing. The descendants of a gateway that has started its own
Triton include tritonserver and, for each instance of a model, a stub in which the model runs.
"""

import contextlib
import time
from collections.abc import Mapping

import psutil

GATEWAY, EVENT_LOOP, TRITON, MODEL = "gateway", "event_loop", "triton", "model"
TRITONSERVER, STUB = "tritonserver", "triton_python_backend_stub"
ROLES = {TRITONSERVER: TRITON, STUB: MODEL}  # by the program's name
PROXIES = {"docker-proxy", "rootlessport", "slirp4netns", "pasta"}
GONE = (psutil.NoSuchProcess, psutil.AccessDenied)


class Watched:
    """The processes of some servers, found once, so that reading their CPU times is cheap."""

    def __init__(self, servers: Mapping[str, int]) -> None:
        """`servers`: process ids by role, which is the role of each process that ROLES lacks."""
        self._servers = servers
        self._members: list[tuple[psutil.Process, str]] = []
        self.look()

    def look(self) -> None:
        """Find the processes again, since servers start and end processes."""
        self._members = [
            (process, ROLES.get(program(process), name))
            for name, pid in self._servers.items()
            for process in tree(pid)
        ]

    def cpu_seconds(self) -> dict[str, float]:
        """Seconds so far by role."""
        found: dict[str, float] = {}
        for process, role in self._members:
            with contextlib.suppress(*GONE):
                if role == GATEWAY:  # before its process, which has then spent as much at least
                    main = next(each for each in process.threads() if each.id == process.pid)
                    spent = main.user_time + main.system_time
                    found[EVENT_LOOP] = found.get(EVENT_LOOP, 0.0) + spent
                times = process.cpu_times()
                found[role] = found.get(role, 0.0) + times.user + times.system
        return found

    def total_seconds(self) -> float:
        """Seconds so far of all processes, and of their children that have ended."""
        total = 0.0
        for process, _ in self._members:
            with contextlib.suppress(*GONE):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total


def tree(pid: int) -> list[psutil.Process]:
    """A process and all its descendants; empty if there is no such process."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def listening(port: int) -> int:
    """The id of the process that listens on a TCP port of this machine; 0 if it is not visible.

    If several processes share the port, the oldest one is taken. A proxy of a container engine does
    not count, since the server behind it is not its descendant.
    """
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(*GONE):
            sockets = process.net_connections("tcp")
            if any(s.status == psutil.CONN_LISTEN and s.laddr.port == port for s in sockets):
                found.append(process)
    if not found:
        return 0
    first = min(found, key=lambda process: process.create_time())
    return 0 if program(first) in PROXIES else first.pid


def named(pid: int, wanted: str) -> list[psutil.Process]:
    """The processes of a tree that run this program."""
    return [process for process in tree(pid) if program(process) == wanted]


def program(process: psutil.Process) -> str:
    """The name of a process's program; "" if the process has ended."""
    with contextlib.suppress(*GONE):
        # Not Process.name(): the kernel cuts a name after 15 letters.
        command = process.cmdline()
        return command[0].rpartition("/")[2] if command else ""
    return ""


def own_cpu_seconds() -> float:
    """CPU seconds of this process, the load generator."""
    return time.process_time()
