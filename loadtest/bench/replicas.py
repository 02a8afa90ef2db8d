"""Several Tritons behind several gateways: is the load even, and what does the loss of one cost?

In: an image and a model repository. Out: throughput beside that of one gateway and one Triton on
the same cores, how evenly the Tritons share the load, and, under load, what happens when one joins,
is killed, is frozen, and while each is restarted in turn. Exits with 1 when a promise is broken. It
starts everything itself. Where HAProxy is installed (`apt install haproxy`) it stands in front of
the gateways, and these are restarted in turn too; elsewhere requests go to each gateway in turn.

    python -m loadtest bench replicas cat.jpg --tritons 3 --gateways 2
"""

import asyncio
import contextlib
import os
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
from tyro.conf import Positional

from loadtest.bench.balanced import balanced
from loadtest.bench.fleet import Triton, gateway_before, share_cores, uses
from loadtest.bench.programs import run
from loadtest.load import loop
from loadtest.load.arrivals import poisson
from loadtest.load.engine import arriving, peak
from loadtest.load.http_target import InTurn, status_target
from loadtest.servers.launch import Server, StackError, together
from loadtest.stats.samples import good
from loadtest.usage import UsageError

EVEN = 0.10  # coefficient of variation
RECOVERY_SECONDS = 5.0
AFTER_SECONDS = 5.0  # of load after each event
LOAD = 0.5  # of the peak, during the events
LOOK_SECONDS = 0.1
PATIENCE_SECONDS = 120.0
DEADLINE_SECONDS = 30.0  # of each request


def main(
    image: Positional[Path],
    *,
    repository: Path = Path("model_repository"),
    model: str = "mixer_cifar10",
    tritons: int = 3,
    gateways: int = 2,
    concurrency: int = 128,
) -> int:
    """Measure and print; 1 if a promise is broken.

    Args:
        image: A JPEG.
        repository: Triton's model repository.
        model: Which one is served.
        tritons: How many, at least 2.
        gateways: How many.
        concurrency: Requests under way that make the peak. Enough of them that the calls to three
            Tritons carry as many images as those to one: with 48 the fleet did 93 % of one pair.
    """
    if tritons < 2:
        raise UsageError("--tritons: expected at least 2")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        shared = share_cores(repository, model, tritons, Path(folder))
        fleet = [Triton(shared, model) for _ in range(tritons)]
        lone = Triton(repository, model)  # it has all cores
        *first, last = fleet
        stack.callback(last.stop)
        stack.enter_context(together(*first, lone))
        doors = [gateway_before(fleet) for _ in range(gateways)]
        lone_door = gateway_before([lone])
        stack.enter_context(together(*doors, lone_door))
        ports = stack.enter_context(balanced(doors))
        lone_ports = stack.enter_context(balanced([lone_door]))
        bench = Bench(
            image.read_bytes(),
            concurrency,
            tritons=fleet,
            gateways=doors,
            ports=ports,
            lone_ports=lone_ports,
        )
        return loop.run(bench.run())


class Bench:
    """The fleet, the events, and the promises that were checked."""

    def __init__(
        self,
        image: bytes,
        concurrency: int,
        *,
        tritons: list[Triton],
        gateways: list[Server],
        ports: list[int],
        lone_ports: list[int],
    ) -> None:
        self._image, self._concurrency = image, concurrency
        self._tritons, self._gateways = tritons, gateways
        self._ports, self._lone_ports = ports, lone_ports
        self._rate = 0.0
        self._broken: list[str] = []

    async def run(self) -> int:
        """Measure throughput and all events; returns 1 if a promise is broken."""
        *first, last = self._tritons
        has_proxy = self._ports != [gateway.port for gateway in self._gateways]
        print(
            f"{'HAProxy' if has_proxy else 'nothing'} stands before {len(self._gateways)} gateways"
        )
        most = await self._peak(self._ports)
        self._rate = LOAD * most
        print(f"peak: {most:.0f} per second; from here on {self._rate:.0f}, at random times")
        await self._event("steady", asyncio.sleep(0), first)
        await self._event("one joins", asyncio.to_thread(last.start), self._tritons)
        victim = self._tritons[1]
        await self._event("one killed", self._killed(victim), self._tritons)
        await self._event("one frozen", self._frozen(victim), self._tritons)
        for number, triton in enumerate(self._tritons):
            restart = self._restarted(triton)
            await self._event(f"restart of Triton {number}", restart, self._tritons)
        if has_proxy:
            for number, gateway in enumerate(self._gateways):
                restart = self._gateway_restarted(gateway)
                await self._event(f"restart of gateway {number}", restart, self._tritons)
        await self._throughput()
        return 1 if self._broken else 0

    def _hold(self, kept: bool, promise: str) -> None:
        print(f"{'kept' if kept else 'BROKEN'}: {promise}")
        if not kept:
            self._broken.append(promise)

    def _target(self, ports: list[int]) -> InTurn:
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        return InTurn([status_target(u, self._image, deadline=DEADLINE_SECONDS) for u in urls])

    async def _event(self, name: str, what: Awaitable[object], sharing: list[Triton]) -> None:
        """Cause the event under load; for some seconds after it the load must be even."""
        async with arriving(self._target(self._ports), poisson(self._rate, 1)) as samples:
            await asyncio.sleep(2)
            await what
            await self._until(self._all_use(len(sharing)), f"{len(sharing)} Tritons that answer")
            before = await self._images(sharing)
            await asyncio.sleep(AFTER_SECONDS)
            shares = np.subtract(await self._images(sharing), before)
        spread = float(shares.std() / shares.mean())
        longest = max(sample.done - sample.due for sample in samples)
        statuses = dict(Counter(sample.answered.status for sample in samples))
        print(f"{name}: answers {statuses}, longest {longest:.2f} s, shares {shares.tolist()}")
        self._hold(set(statuses) == {200}, f"{name}: no request fails")
        self._hold(longest < RECOVERY_SECONDS, f"{name}: nobody waits {RECOVERY_SECONDS:g} s")
        self._hold(spread <= EVEN, f"{name}: even within {EVEN:.0%}, found {spread:.1%}")

    @staticmethod
    async def _images(tritons: list[Triton]) -> list[int]:
        return [await asyncio.to_thread(triton.images) for triton in tritons]

    def _all_use(self, count: int) -> Callable[[], bool]:
        return lambda: all(uses(gateway, count) for gateway in self._gateways)

    @staticmethod
    async def _until(condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not await asyncio.to_thread(condition):
            if time.monotonic() > deadline:
                raise StackError(f"not within {PATIENCE_SECONDS:g} s: {what}")
            await asyncio.sleep(LOOK_SECONDS)

    async def _killed(self, triton: Triton) -> None:
        os.kill(triton.server_pid, signal.SIGKILL)
        await asyncio.sleep(2)

    async def _frozen(self, triton: Triton) -> None:
        pid = triton.server_pid
        os.kill(pid, signal.SIGSTOP)
        try:
            left = len(self._tritons) - 1
            await self._until(self._all_use(left), "the frozen Triton to be left")
            await asyncio.sleep(2)
        finally:
            os.kill(pid, signal.SIGCONT)

    async def _restarted(self, triton: Triton) -> None:
        pid = triton.server_pid
        os.kill(pid, signal.SIGTERM)
        await self._until(lambda: triton.server_pid not in {0, pid}, "Triton's next life")

    @staticmethod
    async def _gateway_restarted(gateway: Server) -> None:
        await asyncio.to_thread(gateway.stop)
        await asyncio.to_thread(gateway.start)

    async def _throughput(self) -> None:
        """Measure the fleet and one gateway with one Triton, in turn, on the same cores."""
        rates: dict[str, list[float]] = {"fleet": [], "pair": []}
        for _ in range(3):
            for name, ports in (("fleet", self._ports), ("pair", self._lone_ports)):
                rates[name].append(await self._peak(ports))
        fleet, pair = (statistics.median(each) for each in rates.values())
        print(f"throughput: fleet {fleet:.1f} per second, one pair {pair:.1f}")
        found = f"the fleet does 95 % of one pair, found {fleet / pair:.0%}"
        self._hold(fleet >= 0.95 * pair, found)

    async def _peak(self, ports: list[int]) -> float:
        """Right answers per second in a closed loop that keeps the servers busy."""
        samples = await peak(self._target(ports), self._concurrency, AFTER_SECONDS)
        return len(good(samples)) / AFTER_SECONDS


if __name__ == "__main__":
    sys.exit(run(main))
