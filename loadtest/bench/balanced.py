"""HAProxy in front of gateways, if this machine has it.

In: running gateways. Out: the ports that requests are to be sent to in turn: that of HAProxy, which
sends each to the next gateway whose /readyz is 200, or without one the ports of the gateways.
"""

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator

from loadtest.bench.rolling import Backend, exchange
from loadtest.bench.served import free_port, until

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


@contextlib.asynccontextmanager
async def balanced(backends: list[Backend]) -> AsyncIterator[list[int]]:
    """The ports to send to: that of an HAProxy before the backends, or else theirs."""
    # Debian puts it where the PATH of a user does not look.
    program = shutil.which("haproxy", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")
    if program is None:
        yield [backend.port for backend in backends]
        return
    port = free_port()
    servers = [
        f"    server gateway{number} 127.0.0.1:{backend.port}\n"
        for number, backend in enumerate(backends)
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".cfg") as file:
        file.write(HAPROXY.format(port=port) + "".join(servers))
        file.flush()
        process = await asyncio.create_subprocess_exec(program, "-db", "-f", file.name)
        try:

            async def answers() -> bool:
                if process.returncode is not None:
                    sys.exit("HAProxy ended at its start; what it has printed says why")
                with contextlib.suppress(OSError):
                    return b" 200 " in (await exchange(port, b"GET /livez HTTP/1.0\r\n\r\n"))[:20]
                return False

            await until(answers, "HAProxy")
            yield [port]
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
