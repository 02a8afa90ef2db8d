"""What a gateway does at several times the load that it can carry.

In: the address of a running gateway and a picture. Out: the peak, measured before and after
with as many requests under way as keep it busy; between, at a fixed rate of a multiple of that,
goodput, the latencies of what was answered and of what was refused. Exits with 1 when a promise is
broken.

    python -m bench.overload http://127.0.0.1:8000 cat.jpg --times 3 --seconds 30 --deadline 2
"""

import argparse
import asyncio
import contextlib
import gc
import os
import sys
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import uvloop

GOODPUT = 0.9  # of the peak
REFUSED_SECONDS = 0.05
# Beyond it the latencies are this program's own.
LATE_SECONDS = 0.01


class Clients:
    """Keep-alive connections to one gateway; each does one request at a time."""

    def __init__(self, url: str, picture: bytes, deadline: float) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        head = (
            f"POST /classify HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: image/jpeg\r\n"
            f"X-Request-Timeout: {deadline}\r\nContent-Length: {len(picture)}\r\n\r\n"
        )
        self._request = head.encode() + picture
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.answers: list[tuple[int, float]] = []  # status and seconds

    async def ask(self) -> None:
        """One request, on an idle connection or a new one; status 0 is a broken connection."""
        began = time.perf_counter()
        status = 0
        while self._idle and self._idle[-1][0].at_eof():
            self._idle.pop()[1].close()  # idle for so long that the gateway has closed it
        try:
            connection = (
                self._idle.pop()
                if self._idle
                else await asyncio.open_connection(self._host, self._port)
            )
            reader, writer = connection
            writer.write(self._request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            status = int(head[9:12])
            if b"connection: close" in head:
                writer.close()
            else:
                self._idle.append(connection)
        except (OSError, asyncio.IncompleteReadError):
            pass
        self.answers.append((status, time.perf_counter() - began))

    def close(self) -> None:
        """Close the connections that wait for a request."""
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()


async def peak(clients: Clients, seconds: float, concurrency: int) -> float:
    """Good answers per second with `concurrency` requests always under way."""
    end = time.perf_counter() + seconds

    async def loop() -> None:
        while time.perf_counter() < end:
            await clients.ask()

    await asyncio.gather(*(loop() for _ in range(concurrency)))
    return sum(status == 200 for status, _ in clients.answers) / seconds


async def at_rate(clients: Clients, rate: float, seconds: float) -> float:
    """Requests at fixed times, whether or not earlier ones have been answered.

    Gives the most seconds by which this program itself was late with one.
    """
    began = time.perf_counter()
    late = 0.0
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            pause = began + number / rate - time.perf_counter()
            late = max(late, -pause)
            if pause > 0:
                await asyncio.sleep(pause)
            group.create_task(clients.ask())
    return late


async def unloaded(options: argparse.Namespace, picture: bytes) -> float:
    """The peak; half of it is measured after the overload, since a machine's speed drifts."""
    clients = Clients(options.url, picture, options.deadline)
    best = await peak(clients, options.seconds / 2, options.concurrency)
    print(f"peak: {best:.1f} per second, {percentiles([s for _, s in clients.answers])}")
    clients.close()
    return best


def percentiles(seconds: list[float]) -> str:
    """Median, 99th percentile and maximum, in milliseconds."""
    if not seconds:
        return "none"
    p50, p99, most = 1000 * np.percentile(seconds, (50, 99, 100))
    return f"median {p50:.1f} ms, p99 {p99:.1f} ms, most {most:.1f} ms"


async def measure(options: argparse.Namespace) -> int:
    """Measure and print; 1 if a promise is broken."""
    # As if it had a machine of its own: it goes first where it may, and does not look for garbage.
    gc.disable()
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    picture = options.picture.read_bytes()
    warm = Clients(options.url, picture, options.deadline)
    await peak(warm, min(3.0, options.seconds), options.concurrency)
    before = await unloaded(options, picture)
    over = Clients(options.url, picture, options.deadline)
    late = await at_rate(over, options.times * before, options.seconds)
    await asyncio.sleep(2 * options.deadline)  # what got 504 may still be worked on
    after = await unloaded(options, picture)
    best = (before + after) / 2
    good = [seconds for status, seconds in over.answers if status == 200]
    refused = [seconds for status, seconds in over.answers if status == 429]
    goodput = len(good) / options.seconds
    print(
        f"{options.times:g}× for {options.seconds:g} s: {dict(Counter(s for s, _ in over.answers))}"
    )
    print(f"goodput: {goodput:.1f} per second, {goodput / best:.0%} of the peak")
    print(f"answered: {percentiles(good)}; the deadline is {1000 * options.deadline:.0f} ms")
    print(f"refused: {percentiles(refused)}")
    if late > LATE_SECONDS:
        print(f"NOT TRUSTWORTHY: this program was up to {1000 * late:.0f} ms late; free a core")
    kept = {
        f"goodput of {GOODPUT:.0%} of the peak": goodput >= GOODPUT * best,
        "p99 of the answered within the deadline": bool(good)
        and float(np.percentile(good, 99)) <= options.deadline,
        f"every refusal within {1000 * REFUSED_SECONDS:.0f} ms": max(refused, default=0)
        < REFUSED_SECONDS,
    }
    for promise, is_kept in kept.items():
        print(f"{'kept' if is_kept else 'BROKEN'}: {promise}")
    return 0 if all(kept.values()) else 1


def main() -> int:
    """Read the command line, measure; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.overload", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("url", help="address of the gateway")
    parser.add_argument("picture", type=Path, help="a JPEG")
    parser.add_argument("--times", type=float, default=3.0, help="of the peak")
    parser.add_argument("--seconds", type=float, default=30.0, help="of overload; a peak has half")
    parser.add_argument("--deadline", type=float, default=2.0, help="X-Request-Timeout, seconds")
    parser.add_argument("--concurrency", type=int, default=32, help="requests that make the peak")
    return uvloop.run(measure(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
