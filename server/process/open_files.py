"""Room for as many connections as the settings allow: each takes a file descriptor.

In: how many connections there may be. Out: a higher limit of this process (RLIMIT_NOFILE), as far
as the system lets a process raise its own, or a warning that says what to raise.
"""

import logging

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment] # or the module

logger = logging.getLogger(__name__)

OTHERS = 256  # files, libraries, the connections to Triton


def allow(connections: int) -> None:
    """Raise the soft limit where it is too low."""
    if resource is None:
        return
    needed = connections + OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    possible = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
    if possible < needed:
        logger.warning(
            "this process may open %d files, fewer than --max-connections %d needs; raise it with "
            "`ulimit -Hn %d`, or lower --max-connections",
            possible,
            connections,
            needed,
        )
