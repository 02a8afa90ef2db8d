"""Several Tritons behind several gateways: is the load even, and what does the loss of one cost?

In: an image and a model repository. Out: throughput beside that of one gateway and one Triton on
the same cores, how evenly the Tritons share the load, and, under load, what happens when one joins,
is killed, is frozen, and while each is restarted in turn. Exits with 1 when a promise is broken. It
starts everything itself. Where HAProxy is installed (`apt install haproxy`) it stands in front of
the gateways, and these are restarted in turn too; elsewhere requests go to each gateway in turn.

    python -m loadtest.bench.replicas cat.jpg --tritons 3 --gateways 2
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import numpy as np
import uvloop

from contracts.model_config import config_text, read_config
from loadtest.bench.balanced import balanced
from loadtest.bench.load import Clients
from loadtest.bench.rolling import Backend, exchange
from loadtest.bench.served import free_port, until
from loadtest.machine.conditions import cores

EVEN = 0.10  # coefficient of variation
RECOVERY_SECONDS = 5.0
AFTER_SECONDS = 5.0  # of load after each event
LOAD = 0.5  # of the peak, during the events


class Triton:
    """A supervised Triton of its own; what ends by itself is started again on the same port."""

    def __init__(self, repository: Path, model: str) -> None:
        self._repository = repository
        self._model = model
        self.port, self._metrics, self._http = free_port(), free_port(), free_port()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it has loaded the model."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "server.triton_alone", "--log-level", "error"),
            *("--repository", str(self._repository), "--grpc-port", str(self.port)),
            *("--metrics-port", str(self._metrics), "--http-port", str(self._http)),
        )
        await until(self._answers, f"Triton on port {self.port}")

    async def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            request = f"GET /v2/models/{self._model}/ready HTTP/1.0\r\n\r\n"
            return b" 200 " in (await exchange(self._http, request.encode()))[:20]
        return False

    @property
    def pid(self) -> int:
        """Of tritonserver itself; 0 while there is none."""
        if self._process is None:
            return 0
        for tasks in Path(f"/proc/{self._process.pid}/task").glob("*/children"):
            for child in tasks.read_text().split():
                if Path(f"/proc/{child}/comm").read_text().strip() == "tritonserver":
                    return int(child)
        return 0

    async def sample_images(self) -> int:
        """How many it has classified since it started."""
        text = await exchange(self._metrics, b"GET /metrics HTTP/1.0\r\n\r\n")
        pattern = rf'^nv_inference_count{{model="{self._model}",version="\d+"}} (\d+)'
        return sum(map(int, re.findall(pattern.encode(), text, re.MULTILINE)))

    async def stop(self) -> None:
        """End it for good."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()


def share_out(options: argparse.Namespace, folder: Path) -> Path:
    """A repository in `folder` whose model takes its share of the cores in each of the Tritons."""
    shutil.copytree(options.repository / options.model, folder / options.model)
    config = folder / options.model / "config.pbtxt"
    threads = max(1, cores() // options.tritons)
    changed = read_config(config)
    changed.parameters["intra_op_thread_count"].string_value = str(threads)
    config.write_text(config_text(changed), encoding="utf-8")
    return folder


async def restart_gateway(backend: Backend) -> None:
    """End a gateway in order and start another in its place."""
    await backend.stop()
    await backend.start()


@contextlib.asynccontextmanager
async def at_rate(targets: list[Clients], rate: float) -> AsyncIterator[None]:
    """Requests at random times, `rate` per second, to each target in turn."""
    random = np.random.default_rng(1)

    async def send(group: asyncio.TaskGroup) -> None:
        moment = time.perf_counter()
        for target in itertools.cycle(targets):
            moment += random.exponential(1 / rate)
            await asyncio.sleep(max(0.0, moment - time.perf_counter()))
            group.create_task(target.ask())

    async with asyncio.TaskGroup() as group:
        sending = group.create_task(send(group))
        try:
            yield
        finally:
            sending.cancel()


@contextlib.asynccontextmanager
async def at_peak(targets: list[Clients], concurrency: int) -> AsyncIterator[None]:
    """So many requests always under way, to each target in turn."""
    turns = itertools.cycle(targets)
    enough = asyncio.Event()

    async def loop() -> None:
        while not enough.is_set():
            await next(turns).ask()

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(loop())
        try:
            yield
        finally:
            enough.set()


class Bench:
    """The fleet and the findings."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._image = options.picture.read_bytes()
        self._folder = tempfile.TemporaryDirectory()
        shared = share_out(options, Path(self._folder.name))
        self.tritons = [Triton(shared, options.model) for _ in range(options.tritons)]
        self._lone_triton = Triton(options.repository, options.model)  # it has all cores
        url = ",".join(f"127.0.0.1:{triton.port}" for triton in self.tritons)
        model = ["--default-model", options.model]
        self._fleet = [
            Backend(["--triton-url", url, *model], free_port()) for _ in range(options.gateways)
        ]
        self._lone = Backend(["--triton-url", f"127.0.0.1:{self._lone_triton.port}", *model])
        self._rate = 0.0
        self._ports: list[int] = []
        self._lone_ports: list[int] = []
        self.broken: list[str] = []

    def hold(self, kept: bool, promise: str) -> None:
        """Note whether a promise is kept."""
        print(f"{'kept' if kept else 'BROKEN'}: {promise}")
        if not kept:
            self.broken.append(promise)

    def _clients(self, ports: list[int]) -> list[Clients]:
        return [Clients(f"http://127.0.0.1:{port}", self._image, 30) for port in ports]

    async def run(self) -> None:
        """All of it."""
        *first, last = self.tritons
        await asyncio.gather(*(triton.start() for triton in [*first, self._lone_triton]))
        await asyncio.gather(*(backend.start() for backend in [*self._fleet, self._lone]))
        async with balanced(self._fleet) as self._ports, balanced([self._lone]) as self._lone_ports:
            await self._under_load(first, last)

    async def _under_load(self, first: list[Triton], last: Triton) -> None:
        has_proxy = self._ports != [backend.port for backend in self._fleet]
        print(f"{'HAProxy' if has_proxy else 'nothing'} stands before {len(self._fleet)} gateways")
        peak = await self._peak(self._ports)
        self._rate = LOAD * peak
        print(f"peak: {peak:.0f} per second; from here on {self._rate:.0f}, at random times")
        await self._event("steady", asyncio.sleep(0), first)
        await self._event("one joins", last.start(), self.tritons)
        victim = self.tritons[1]
        await self._event("one killed", self._killed(victim), self.tritons)
        await self._event("one frozen", self._frozen(victim), self.tritons)
        for number, triton in enumerate(self.tritons):
            await self._event(f"restart of Triton {number}", self._restarted(triton), self.tritons)
        if has_proxy:
            for number, backend in enumerate(self._fleet):
                await self._event(
                    f"restart of gateway {number}", restart_gateway(backend), self.tritons
                )
        await self._throughput()

    async def _event(self, name: str, what: Awaitable[None], sharing: list[Triton]) -> None:
        """Under load: the event, then some seconds in which the load is to be even."""
        targets = self._clients(self._ports)
        async with at_rate(targets, self._rate):
            await asyncio.sleep(2)
            await what
            await until(self._all_used(len(sharing)), f"{len(sharing)} Tritons that answer")
            before = [await triton.sample_images() for triton in sharing]
            await asyncio.sleep(AFTER_SECONDS)
            after = [await triton.sample_images() for triton in sharing]
        answers = [answer for clients in targets for answer in clients.answers]
        shares = np.subtract(after, before)
        spread = float(shares.std() / shares.mean())
        longest = max(seconds for _, seconds in answers)
        statuses = dict(Counter(status for status, _ in answers))
        print(f"{name}: answers {statuses}, longest {longest:.2f} s, shares {shares.tolist()}")
        self.hold(set(statuses) == {200}, f"{name}: no request fails")
        self.hold(longest < RECOVERY_SECONDS, f"{name}: nobody waits {RECOVERY_SECONDS:g} s")
        self.hold(spread <= EVEN, f"{name}: even within {EVEN:.0%}, found {spread:.1%}")

    def _all_used(self, count: int) -> Callable[[], Awaitable[bool]]:
        async def used() -> bool:
            for backend in self._fleet:
                text = await exchange(backend.port, b"GET /metrics HTTP/1.0\r\n\r\n")
                if f"\nmixer_triton_replicas {count}.0\n".encode() not in text:
                    return False
            return True

        return used

    async def _killed(self, triton: Triton) -> None:
        os.kill(triton.pid, signal.SIGKILL)
        await asyncio.sleep(2)

    async def _frozen(self, triton: Triton) -> None:
        pid = triton.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            await until(self._all_used(len(self.tritons) - 1), "the frozen Triton to be left")
            await asyncio.sleep(2)
        finally:
            os.kill(pid, signal.SIGCONT)

    async def _restarted(self, triton: Triton) -> None:
        pid = triton.pid
        os.kill(pid, signal.SIGTERM)

        async def again() -> bool:
            return triton.pid not in {0, pid}

        await until(again, "Triton's next life")

    async def _throughput(self) -> None:
        """The fleet and one pair, in turn, on the same cores."""
        rates: dict[str, list[float]] = {"fleet": [], "pair": []}
        for _ in range(3):
            for name, ports in (("fleet", self._ports), ("pair", self._lone_ports)):
                rates[name].append(await self._peak(ports))
        fleet, pair = (float(np.median(each)) for each in rates.values())
        print(f"throughput: fleet {fleet:.1f} per second, one pair {pair:.1f}")
        self.hold(
            fleet >= 0.95 * pair, f"the fleet does 95 % of one pair, found {fleet / pair:.0%}"
        )

    async def _peak(self, ports: list[int]) -> float:
        """Good answers per second while there is always something to do."""
        targets = self._clients(ports)
        began = time.perf_counter()
        async with at_peak(targets, self._options.concurrency):
            await asyncio.sleep(AFTER_SECONDS)
        good = sum(status == 200 for clients in targets for status, _ in clients.answers)
        return good / (time.perf_counter() - began)

    async def stop(self) -> None:
        """End everything."""
        await asyncio.gather(*(backend.stop() for backend in [*self._fleet, self._lone]))
        await asyncio.gather(*(triton.stop() for triton in [*self.tritons, self._lone_triton]))
        self._folder.cleanup()


async def measure(options: argparse.Namespace) -> int:
    """Run, stop, and 1 if a promise is broken."""
    bench = Bench(options)
    try:
        await bench.run()
    finally:
        await bench.stop()
    return 1 if bench.broken else 0


def main() -> int:
    """Read the command line, measure; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.replicas", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("image", type=Path, help="a JPEG")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--model", default="mixer_cifar10")
    parser.add_argument("--tritons", type=int, default=3, help="at least 2")
    parser.add_argument("--gateways", type=int, default=2)
    # Enough that the calls to three Tritons carry as many images as those to one: with 48 the
    # fleet did 93 % of one pair.
    parser.add_argument("--concurrency", type=int, default=128, help="requests that make the peak")
    return uvloop.run(measure(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
