"""What a gateway under load does while its Triton dies, loses a model, or is cut off.

In: an image. Out: for each of the three, after how many seconds /readyz said so, how many after
the kill, or after the network was mended, it was well again, and what the requests got meanwhile.
It starts a gateway with a Triton, and before the same Triton a second gateway, behind a network
that can swallow everything. Exits with 1 when a promise of loadtest/bench/README.md is broken.

    python -m loadtest.bench.outages cat.jpg --rate 50
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import uvloop

from loadtest.bench.load import Clients, at_rate
from loadtest.bench.served import Served, family, served

NOT_READY_SECONDS = 5.0
WELL_SECONDS = 10.0
CUT_OFF_SECONDS = 8.0
LOOK_SECONDS = 0.05
PATIENCE_SECONDS = 60.0
# An answer that the gateway sends at the deadline reaches a busy client a little later.
SLACK_SECONDS = 0.25


class Network:
    """Between a gateway and Triton; what it swallowed once stays dead, as real connections do."""

    def __init__(self) -> None:
        self.swallows = False
        self._open: set[asyncio.StreamWriter] = set()
        self._dead: set[asyncio.StreamWriter] = set()

    @contextlib.asynccontextmanager
    async def before(self, target: str) -> AsyncIterator[str]:
        """Its address, in front of `target`."""
        host, _, port = target.rpartition(":")

        async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                from_triton, to_triton = await asyncio.open_connection(host, int(port))
                ways = ((reader, to_triton), (from_triton, writer))
                self._open |= {writer, to_triton}
                await asyncio.gather(*(self._carry(*way) for way in ways))

        server = await asyncio.start_server(connect, "127.0.0.1", 0)
        try:
            yield "{}:{}".format(*server.sockets[0].getsockname()[:2])
        finally:
            server.close()
            for writer in self._open:
                writer.close()

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(2**16):
                if self.swallows:
                    self._dead.add(sink)
                if sink not in self._dead:
                    sink.write(data)
                    await sink.drain()
        if sink not in self._dead:
            sink.close()

    @contextlib.contextmanager
    def cut_off(self) -> Iterator[None]:
        """Swallow everything, also afterwards on the connections there are now."""
        self._dead |= self._open
        self.swallows = True
        try:
            yield
        finally:
            self.swallows = False


async def until(gateway: Served, status: int) -> float:
    """Seconds until /readyz has this status; infinite where patience ends first."""
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE_SECONDS:
        if await gateway.status("/readyz") == status:
            return time.monotonic() - began
        await asyncio.sleep(LOOK_SECONDS)
    return float("inf")


async def outage(
    name: str, gateway: Served, options: argparse.Namespace, begin: Callable[[], object]
) -> bool:
    """One outage under load; whether every promise was kept."""
    clients = Clients(gateway.url, options.picture.read_bytes(), options.deadline)
    load = asyncio.create_task(at_rate(clients, options.rate, PATIENCE_SECONDS))
    await asyncio.sleep(2)
    ended = begin()
    since = time.monotonic()
    noticed = await until(gateway, 503)
    if isinstance(ended, contextlib.AbstractContextManager):
        await asyncio.sleep(max(0.0, CUT_OFF_SECONDS - noticed))
        ended.__exit__(None, None, None)
        since = time.monotonic()
    await until(gateway, 200)
    well = time.monotonic() - since
    after = len(clients.answers)
    await asyncio.sleep(2)
    load.cancel()
    await asyncio.gather(load, return_exceptions=True)
    statuses = Counter(status for status, _ in clients.answers)
    late = [status for status, _ in clients.answers[after + int(options.rate) :]]
    slowest = max(seconds for _, seconds in clients.answers)
    print(
        f"{name}: not ready after {noticed:.2f} s, ready again in {well:.2f} s; answers "
        f"{dict(statuses)}, the slowest {slowest:.2f} s at a deadline of {options.deadline:g} s"
    )
    kept = {
        f"503 within {NOT_READY_SECONDS:g} s": noticed <= NOT_READY_SECONDS,
        f"well within {WELL_SECONDS:g} s": well <= WELL_SECONDS,
        "only 200, 503 and 504": set(statuses) <= {200, 503, 504},
        "nothing beyond the deadline": slowest <= options.deadline + SLACK_SECONDS,
        "all well afterwards": bool(late) and set(late) == {200},
    }
    for promise in (promise for promise, is_kept in kept.items() if not is_kept):
        print(f"  BROKEN: {promise}")
    return all(kept.values())


async def measure(options: argparse.Namespace) -> int:
    """Each outage, `--times` times; 1 if a promise is broken."""
    network = Network()
    kept = []
    async with (
        served("--with-triton", "--default-model", options.model) as gateway,
        network.before(gateway.triton) as url,
        served("--triton-url", url, "--default-model", options.model) as distant,
    ):

        def kill(word: str) -> None:
            pid = next(pid for pid, line in family(gateway.pid).items() if word in line)
            os.kill(pid, signal.SIGKILL)

        def cut_off() -> contextlib.AbstractContextManager[None]:
            entered = network.cut_off()
            entered.__enter__()
            return entered

        for _ in range(options.times):
            kept += [
                await outage("cut off", distant, options, cut_off),
                await outage("killed", gateway, options, lambda: kill("bin/tritonserver")),
                await outage("model lost", gateway, options, lambda: kill("backend_stub")),
            ]
    return 0 if all(kept) else 1


def main() -> int:
    """Read the command line, measure; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.outages", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("image", type=Path, help="a JPEG")
    parser.add_argument("--model", default="mixer_cifar10")
    parser.add_argument("--rate", type=float, default=50.0, help="requests per second")
    parser.add_argument("--deadline", type=float, default=2.0, help="X-Request-Timeout, seconds")
    parser.add_argument("--times", type=int, default=1, help="each outage")
    return uvloop.run(measure(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
