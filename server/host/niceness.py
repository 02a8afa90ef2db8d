"""The priority of threads that compute, below that of the event loop that accepts requests.

In: a thread that calls `lower_priority`. Out: where cores are scarce the event loop runs first, so
that a refusal comes at once.
"""

import os
import sys
import threading

# Added to the process's own niceness: if both want a core, the thread gets a tenth of the event
# loop's share. The backends of Triton's models use the same number.
NICENESS = 10


def lower_priority() -> None:
    """Lower the priority of the calling thread; only Linux can.

    There each thread has its own niceness (sched(7)), elsewhere only the process.
    """
    if sys.platform != "linux":
        return
    thread = threading.get_native_id()
    own = os.getpriority(os.PRIO_PROCESS, thread)
    os.setpriority(os.PRIO_PROCESS, thread, own + NICENESS)  # 19 at most: the kernel cuts it
