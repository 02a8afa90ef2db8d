"""The health check of a Triton container: asks the supervisor, which probes every model itself.

In: the supervisor's status on loopback. Out: exit status 0 when `/readyz` is 200, else 1 and the
reason on stderr. A Triton that is not healthy is the supervisor's own matter: nothing else starts
it again, so that no two of them get in each other's way. Only a supervisor that does not answer at
all, so often in a row as --end-after says, has its container ended from here: Docker's restart
policy does not act on an unhealthy container, but on one that has ended. (In Kubernetes the kubelet
asks `/livez` instead.) Python's own library alone: the file runs in NVIDIA's image too.
"""

import argparse
import contextlib
import http.client
import os
import signal
import sys
from pathlib import Path

STATE = Path("/tmp/triton-health")  # noqa: S108  (the container's own tmpfs)
TIMEOUT_S = 5.0


class SilentError(Exception):
    """The supervisor accepts connections but does not answer."""


def main() -> int:
    """Check once; the exit status."""
    parser = argparse.ArgumentParser(prog="health.py", description=__doc__)
    parser.add_argument("--port", type=int, default=8003, help="the supervisor's --status-port")
    parser.add_argument(
        "--end-after",
        type=int,
        default=0,
        help="end the container when the supervisor has not answered so often in a row",
    )
    options = parser.parse_args()
    try:
        status, answer = ask(options.port)
    except SilentError as error:
        print(error, file=sys.stderr)
        if options.end_after and silent_again() >= options.end_after:
            end_container()
        return 1
    except (OSError, http.client.HTTPException) as error:
        print(f"the supervisor of Triton does not answer: {error!r}", file=sys.stderr)
        return 1
    if options.end_after:
        STATE.unlink(missing_ok=True)
    if status != 200:
        print(f"/readyz is {status}: {answer}", file=sys.stderr)
    return int(status != 200)


def ask(port: int) -> tuple[int, str]:
    """Status and text of /readyz."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/readyz")
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace").strip()
        except TimeoutError as error:
            text = f"the supervisor of Triton does not answer within {TIMEOUT_S:g} s"
            raise SilentError(text) from error


def silent_again() -> int:
    """Count a check without an answer; returns the number of such checks in a row."""
    try:
        count = int(STATE.read_text()) + 1
    except (OSError, ValueError):
        count = 1
    STATE.write_text(str(count))
    return count


def end_container() -> None:
    """Ask PID 1 to end, and kill all other processes, also a supervisor that hangs.

    If PID 1 belongs to root or to another user, nothing is ended: this is not a container of this
    project, or no container at all.
    """
    if os.getuid() == 0 or Path("/proc/1").stat().st_uid != os.getuid():
        print("not in a container of a user of its own, so nothing is ended", file=sys.stderr)
        return
    print("ending the container, so that it is started again", file=sys.stderr, flush=True)
    STATE.unlink(missing_ok=True)
    os.kill(1, signal.SIGTERM)
    os.kill(-1, signal.SIGKILL)  # not PID 1, and not this process


if __name__ == "__main__":
    sys.exit(main())
