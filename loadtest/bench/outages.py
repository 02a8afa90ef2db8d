"""What a gateway under load does while its Triton dies, loses a model, or is cut off.

In: an image. Out: for each of the three, after how many seconds /readyz said so, how many after
the kill, or after the network was mended, it was well again, and what the requests got meanwhile.
It starts a gateway with a Triton, and before the same Triton a second gateway, behind a network
that can swallow everything. Exits with 1 when a promise of loadtest/bench/README.md is broken.

    python -m loadtest bench outages cat.jpg --rate 50
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from tyro.conf import Positional

from loadtest.bench.programs import run
from loadtest.load import loop
from loadtest.load.arrivals import poisson
from loadtest.load.engine import arriving
from loadtest.load.http_target import status_target
from loadtest.servers.launch import Server, gateway, triton_address, until
from loadtest.servers.processes import STUB, TRITONSERVER, named

NOT_READY_SECONDS = 5.0
WELL_SECONDS = 10.0
CUT_OFF_SECONDS = 8.0
PATIENCE_SECONDS = 60.0
# An answer that the gateway sends at the deadline reaches a busy client a little later.
SLACK_SECONDS = 0.25


class Network:
    """A network between a gateway and Triton that can drop every packet.

    A connection that was cut off stays dead afterwards, as a real one does.
    """

    def __init__(self) -> None:
        self.swallows = False
        self._open: set[asyncio.StreamWriter] = set()
        self._dead: set[asyncio.StreamWriter] = set()

    @contextlib.asynccontextmanager
    async def before(self, target: str) -> AsyncIterator[str]:
        """The address of this network, which leads to `target`."""
        host, _, port = target.rpartition(":")

        async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                from_triton, to_triton = await asyncio.open_connection(host, int(port))
            except OSError:  # nobody listens there, so nobody may seem to listen here
                writer.close()
                return
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
        """Drop all data; on the connections that exist now, data are dropped afterwards too."""
        self._dead |= self._open
        self.swallows = True
        try:
            yield
        finally:
            self.swallows = False


class Outages:
    """The outages, and the load during which they happen."""

    def __init__(self, image: bytes, rate: float, deadline: float) -> None:
        self._image, self._rate, self._deadline = image, rate, deadline

    async def one(self, name: str, server: Server, begin: Callable[[], object]) -> bool:
        """Cause one outage under load; returns whether every promise was kept.

        `begin` starts the outage. If `begin` returns a context manager, its exit ends the outage.
        """
        target = status_target(server.url, self._image, deadline=self._deadline)
        async with arriving(target, poisson(self._rate, 0)) as samples:
            await asyncio.sleep(2)
            ended = begin()
            since = time.monotonic()
            noticed = await until(server, "/readyz", 503, PATIENCE_SECONDS)
            if isinstance(ended, contextlib.AbstractContextManager):
                await asyncio.sleep(max(0.0, CUT_OFF_SECONDS - noticed))
                ended.__exit__(None, None, None)
                since = time.monotonic()
            await until(server, "/readyz", 200, PATIENCE_SECONDS)
            well = time.monotonic() - since
            after = time.perf_counter() + 1  # earlier requests have their answers by then
            await asyncio.sleep(2)
        target.close()
        statuses = Counter(sample.answered.status for sample in samples)
        late = {sample.answered.status for sample in samples if sample.due > after}
        slowest = max(sample.done - sample.due for sample in samples)
        print(
            f"{name}: not ready after {noticed:.2f} s, ready again in {well:.2f} s; answers "
            f"{dict(statuses)}, the slowest {slowest:.2f} s at a deadline of {self._deadline:g} s"
        )
        kept = {
            f"503 within {NOT_READY_SECONDS:g} s": noticed <= NOT_READY_SECONDS,
            f"well within {WELL_SECONDS:g} s": well <= WELL_SECONDS,
            "only 200, 503 and 504": set(statuses) <= {200, 503, 504},
            "nothing beyond the deadline": slowest <= self._deadline + SLACK_SECONDS,
            "all well afterwards": late == {200},
        }
        for promise in (promise for promise, is_kept in kept.items() if not is_kept):
            print(f"  BROKEN: {promise}")
        return all(kept.values())


def main(
    image: Positional[Path],
    *,
    model: str = "mixer_cifar10",
    rate: float = 50.0,
    deadline: float = 2.0,
    times: int = 1,
) -> int:
    """Measure and print; 1 if a promise is broken.

    Args:
        image: A JPEG.
        model: Which one is asked.
        rate: Requests per second, at random times.
        deadline: X-Request-Timeout of each request, in seconds.
        times: How often each outage.
    """
    outages = Outages(image.read_bytes(), rate, deadline)
    with gateway("--with-triton", "--default-model", model, own_session=False) as server:
        return loop.run(measure(server, model, outages, times))


async def measure(server: Server, model: str, outages: Outages, times: int) -> int:
    """Each outage, `times` times; 1 if a promise is broken."""
    network = Network()
    kept = []

    def kill(program: str) -> None:
        os.kill(named(server.pid, program)[0].pid, signal.SIGKILL)

    def cut_off() -> contextlib.AbstractContextManager[None]:
        entered = network.cut_off()
        entered.__enter__()
        return entered

    async with network.before(triton_address(server.pid)) as url:
        distant = gateway("--triton-url", url, "--default-model", model, own_session=False)
        try:
            await asyncio.to_thread(distant.start)
            for _ in range(times):
                kept += [
                    await outages.one("cut off", distant, cut_off),
                    await outages.one("killed", server, lambda: kill(TRITONSERVER)),
                    await outages.one("model lost", server, lambda: kill(STUB)),
                ]
        finally:
            await asyncio.to_thread(distant.stop)
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(run(main))
