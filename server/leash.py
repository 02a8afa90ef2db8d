"""Runs a command that cannot outlive the process that started it, in a process group of its own.

    python leash.py PARENT_PID COMMAND [ARGUMENT…]

In: the process id of the caller, and the command. Out: this process becomes the command, after it
has asked the kernel for SIGKILL at the caller's death, however the caller dies. The kernel means
the caller's *thread* (prctl(2), PR_SET_PDEATHSIG): start it from one that lives to the end. This is
a program of its own because code between fork and exec is unsafe beside the caller's other threads.

A group, and not a session: where the kernel has autogroups and no container or service manager has
put the processes into CPU groups of its own, every session gets the same share of the cores, and
niceness counts only within one (sched(7)). In a session of its own a busy Triton took half of the
machine from the event loop that is to refuse what is too much.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Tie this process to its parent, then become the command."""
    os.setpgid(0, 0)  # first, as a Ctrl-C before it would reach this process too
    parent, command = int(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit("the parent has already gone")
    os.execv(command[0], command)  # noqa: S606  (no shell is wanted)


if __name__ == "__main__":
    main()
