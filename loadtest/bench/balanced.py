"""HAProxy in front of gateways, if this machine has it.

In: running gateways. Out: the ports to which requests are to be sent in turn. With HAProxy this is
its one port; HAProxy sends each request to the next gateway whose /readyz answers 200. Without
HAProxy these are the ports of the gateways.
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
    """The path of HAProxy; Debian installs it in a folder that is not on a user's PATH."""
    return shutil.which("haproxy", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")


@contextlib.contextmanager
def balanced(gateways: Sequence[Server]) -> Iterator[list[int]]:
    """The ports to send to: the port of an HAProxy before the gateways, or the gateways' ports."""
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
