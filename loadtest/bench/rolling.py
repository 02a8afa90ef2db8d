"""Restart two gateways behind a load balancer, one after the other, under load.

In: the address of a Triton and an image. Out: how many requests failed; exits with 1 if any did.
It starts the gateways and, in this process, a balancer as plain as can be: it asks each gateway's
/readyz five times a second and sends each connection to the next one that was ready.

    python -m loadtest.bench.rolling 127.0.0.1:8001 cat.jpg --rate 20
"""

import argparse
import asyncio
import itertools
import re
import signal
import sys
import time
from collections import Counter
from pathlib import Path

CHECK_SECONDS = 0.2
DRAIN_SECONDS = 2.0


class Backend:
    """One gateway process and whether the balancer uses it."""

    def __init__(self, flags: list[str], port: int = 0) -> None:
        """`port` 0: any free one, after each start another."""
        self._flags = ["--port", str(port), *flags]
        self.port = port
        self.ready = False
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it is ready."""
        self.ready = False
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "server", *self._flags),
            *("--drain-seconds", str(DRAIN_SECONDS)),
            stderr=asyncio.subprocess.PIPE,
        )
        while not (found := re.search(rb"listening on http://[^:]+:(\d+)", await self._line())):
            pass
        self.port = int(found[1])
        while not self.ready:
            await self.check()
            await asyncio.sleep(CHECK_SECONDS)

    async def _line(self) -> bytes:
        if self.process is None or self.process.stderr is None:
            return b""
        line = await self.process.stderr.readline()
        if not line:
            raise RuntimeError("the gateway ended; start it by hand to see why")
        return line

    async def check(self) -> None:
        """Ask /readyz."""
        try:
            status = await exchange(self.port, b"GET /readyz HTTP/1.0\r\nConnection: close\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError):
            status = b""
        self.ready = b" 200 " in status[:20]

    async def stop(self) -> int:
        """SIGTERM; its exit status."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        return await self.process.wait()


async def exchange(port: int, request: bytes) -> bytes:
    """Send, then read until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.close()


async def measure(options: argparse.Namespace) -> int:
    """Restart under load; 1 if a request failed."""
    flags = ["--triton-url", options.triton_url, "--default-model", options.model]
    backends = [Backend(flags), Backend(flags)]
    await asyncio.gather(*(backend.start() for backend in backends))
    turns = itertools.count()
    answers: Counter[str] = Counter()
    picture = options.picture.read_bytes()
    request = (
        b"POST /classify HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: image/jpeg\r\n"
        b"Content-Length: " + str(len(picture)).encode() + b"\r\n\r\n" + picture
    )

    async def balance() -> None:
        while True:
            await asyncio.gather(*(backend.check() for backend in backends if backend.port))
            await asyncio.sleep(CHECK_SECONDS)

    async def ask() -> None:
        usable = [backend for backend in backends if backend.ready]
        if not usable:
            answers["no gateway ready"] += 1
            return
        try:
            answer = await exchange(usable[next(turns) % len(usable)].port, request)
        except OSError as error:
            answers[type(error).__name__] += 1
        else:
            answers[answer[9:12].decode() or "closed without an answer"] += 1

    async def load() -> None:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                await asyncio.sleep(began + number / options.rate - time.perf_counter())
                group.create_task(ask())

    background = [asyncio.create_task(balance()), asyncio.create_task(load())]
    exits = []
    for backend in backends:
        await asyncio.sleep(2)
        exits.append(await backend.stop())
        await backend.start()
    await asyncio.sleep(2)
    for task in reversed(background):
        task.cancel()
    await asyncio.gather(*background, return_exceptions=True)
    for backend in backends:
        exits.append(await backend.stop())
    print(f"answers: {dict(answers)}; exit statuses: {exits}")
    return 0 if set(answers) == {"200"} and not any(exits) else 1


def main() -> int:
    """Read the command line, measure; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.rolling", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("triton_url", help="HOST:PORT of Triton's gRPC")
    parser.add_argument("image", type=Path, help="a JPEG")
    parser.add_argument("--model", default="mixer_cifar10")
    parser.add_argument("--rate", type=float, default=20.0, help="requests per second")
    return asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
