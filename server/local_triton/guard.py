"""Runs a command that cannot outlive the process that started it, in a process group of its own.

    python guard.py PARENT_PID REGIONS FOLDER COMMAND [ARGUMENT…]

In: the process id of the caller, how the paths of the command's shared memory begin, the command's
temporary folder, and the command. Out: this process becomes the command, after it has asked the
kernel for SIGKILL at the caller's death, however the caller dies. The kernel means the caller's
*thread* (prctl(2), PR_SET_PDEATHSIG): start it from a thread that lives as long as the caller. This
is a program of its own because code between fork and exec is unsafe beside other threads.

A guard process stays in the group. When the caller has died, the guard gives the processes that the
command has started 2 s to end by themselves, then removes the shared memory and the folder, and
kills the whole group, itself included. Triton's stubs check for their parent's death, too, but they
first wait for a lock that a killed Triton may have held.

The group is not a session of its own: where the kernel has autogroups and no container or service
manager has put the processes into CPU groups, every session gets the same share of the cores, and
niceness counts only within one (sched(7)). In a session of its own a busy Triton took half of the
machine from the event loop that has to refuse excess requests.
"""

import ctypes
import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h
END_SECONDS = 2.0  # a stub needs 0.3 s


def main() -> None:
    """Tie this process to its parent, leave a guard, then become the command."""
    os.setpgid(0, 0)  # first, as a Ctrl-C before it would reach this process too
    parent, command = int(sys.argv[1]), sys.argv[4:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    caller = os.pidfd_open(parent)
    if os.getppid() != parent:
        sys.exit("the parent has already gone")
    # The guard is a grandchild, since the command's children are watched as its stubs.
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            guard(caller, regions=Path(sys.argv[2]), folder=Path(sys.argv[3]))
        os._exit(0)
    os.waitpid(child, 0)
    os.execvp(command[0], command)  # noqa: S606  (no shell is wanted)


def guard(caller: int, regions: Path, folder: Path) -> None:
    """Wait for the end of the process that `caller` is a pidfd of, and see that its group ends."""
    # The reader of the command's output waits until no process has that output open.
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nothing, stream)
    select.select([caller], [], [])
    time.sleep(END_SECONDS)
    for region in regions.parent.glob(f"{regions.name}*"):
        region.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
