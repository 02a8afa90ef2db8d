"""HAProxy in front of gateways, if this machine has it.

In: running gateways. Out: the ports that requests are to be sent to in turn: that of HAProxy, which
sends each to the next gateway whose /readyz is 200, or without one the ports of the gateways.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence

from loadtest.servers.launch import LOOK_SECONDS, Server, StackError, free_port, get

START_SECONDS = 30.0
HAPROXY = """
defaults
    mode http
    timeout connect 1s
    timeout client 60s
    timeout server 60s
frontend all
    bind 127.0.0.1:{port}
    default_backend gateways
backend gateways
    balance roundrobin
    option httpchk GET /readyz
    default-server check inter 200ms fall 1 rise 1
"""


def find_haproxy() -> str | None:
    """The program; Debian puts it where the PATH of a user does not look."""
    return shutil.which("haproxy", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")


@contextlib.contextmanager
def balanced(gateways: Sequence[Server]) -> Iterator[list[int]]:
    """The ports to send to: that of an HAProxy before the gateways, or else theirs."""
    program = find_haproxy()
    if program is None:
        yield [gateway.port for gateway in gateways]
        return
    port = free_port()
    servers = [
        f"    server gateway{number} 127.0.0.1:{gateway.port}\n"
        for number, gateway in enumerate(gateways)
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".cfg") as file:
        file.write(HAPROXY.format(port=port) + "".join(servers))
        file.flush()
        process = subprocess.Popen([program, "-db", "-f", file.name])
        try:
            deadline = time.monotonic() + START_SECONDS
            while get(f"http://127.0.0.1:{port}/livez")[0] != 200:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise StackError("HAProxy does not start; what it has printed says why")
                time.sleep(LOOK_SECONDS)
            yield [port]
        finally:
            process.terminate()
            process.wait()
