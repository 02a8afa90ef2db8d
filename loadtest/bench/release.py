"""A release of models under load: is a good one free, and a bad one stopped with an alert?

In: an image and a model repository. Out: requests and failures while every Triton is exchanged for
one with other models, as the chart's roll-out does it: a new one comes first, an old one goes when
every model in the new one answers its golden image. First with a good release, then with a bad one,
whose answers are not those of its export: it must not go on, the old ones must serve, and where
Prometheus is installed (Debian's package `prometheus`) an alert must fire, by the project's own
rules. Exits with 1 when a promise is broken. It starts everything itself.

    python -m loadtest bench release cat.jpg --tritons 3 --gateways 2
"""

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tyro.conf import Positional

from contracts.probing import Golden, read_golden, write_golden
from loadtest.bench.alerts import firing, prometheus
from loadtest.bench.balanced import balanced
from loadtest.bench.door import Door
from loadtest.bench.fleet import share_cores
from loadtest.bench.programs import run
from loadtest.load import loop
from loadtest.load.arrivals import poisson
from loadtest.load.engine import Sample, arriving, peak
from loadtest.load.http import Http, Response
from loadtest.load.http_target import InTurn, StatusTarget
from loadtest.servers.launch import Server, StackError, free_port, gateway, get
from loadtest.stats.samples import good, latencies
from loadtest.usage import UsageError

LOAD = 0.5  # of the peak
PEAK_SECONDS = 5.0
MIN_READY_SECONDS = 2.0  # the chart's minReadySeconds is 5
DRAIN_SECONDS = 2.0  # the chart's is 10, most of it for DNS
START_SECONDS = 60.0
BAD_SECONDS = 15.0  # how long a bad release has to become ready; its models load in 2 to 3 s
ALERTS = {"MixerTritonNotReady", "MixerModelUnhealthy"}


class Triton(Server):
    """A supervised Triton with a status, and the port (`Door`) through which gateways reach it."""

    def __init__(self, repository: Path, door: Door) -> None:
        self.door = door
        self.grpc_port, self.status_port = free_port(), free_port()
        arguments = (
            *("server.triton_alone", "--log-level", "error", "--repository", str(repository)),
            *("--grpc-port", str(self.grpc_port), "--metrics-port", str(free_port())),
            *("--http-port", str(free_port()), "--status-port", str(self.status_port)),
        )
        super().__init__(arguments, self.status_port, "/readyz", own_session=False)

    def problems(self) -> dict[str, str]:
        """The problems that this Triton's status reports, by model."""
        _, text = get(f"{self.url}/readyz")
        problems: dict[str, str] = json.loads(text or b"{}").get("problems", {})
        return problems


class VersionTarget(StatusTarget):
    """Counts which release has answered."""

    versions: Counter[str]

    def __init__(self, http: Http, requests: list[bytes], versions: Counter[str]) -> None:
        super().__init__(http, requests)
        self.versions = versions

    def _wrong(self, place: int, response: Response) -> str:
        problem = super()._wrong(place, response)
        if not problem:
            self.versions[json.loads(response.body)["version"]] += 1
        return problem


def main(
    image: Positional[Path],
    *,
    repository: Path = Path("model_repository"),
    model: str = "mixer_cifar10",
    tritons: int = 3,
    gateways: int = 2,
    concurrency: int = 32,
) -> int:
    """Measure and print; 1 if a promise is broken.

    Args:
        image: A JPEG.
        repository: Triton's model repository.
        model: Which one is served.
        tritons: How many serve; one more is there during the roll-out.
        gateways: How many.
        concurrency: Requests under way that make the peak.
    """
    if read_golden(repository / model) is None:
        raise UsageError(f"{repository / model} has no golden answer: export the model again")
    with tempfile.TemporaryDirectory() as folder:
        releases = [
            released(repository, model, tritons + 1, Path(folder), number) for number in (1, 2, 3)
        ]
        spoil(releases[2] / model)
        bench = Bench(
            image.read_bytes(), model, releases=releases, tritons=tritons, gateways=gateways,
            folder=Path(folder),
        )  # fmt: skip
        return loop.run(bench.run(concurrency))


def released(repository: Path, model: str, tritons: int, folder: Path, number: int) -> Path:
    """A repository with the model as version `number`."""
    made = share_cores(repository, model, tritons, folder / str(number))
    (version,) = (each for each in (made / model).iterdir() if each.name.isdigit())
    version.rename(version.with_name(str(number)))
    return made


def spoil(folder: Path) -> None:
    """Change the model so that its answers are not those of its export."""
    golden = read_golden(folder)
    if golden is None:
        raise StackError(f"{folder} has no golden answer")
    classes, values = list(golden.top), list(golden.top.values())
    turned = dict(zip(classes, [*values[1:], values[0]], strict=True))
    write_golden(folder, Golden(golden.image_sha256, golden.classes, turned))


class Bench:
    """The fleet and the findings."""

    def __init__(
        self,
        image: bytes,
        model: str,
        *,
        releases: list[Path],
        tritons: int,
        gateways: int,
        folder: Path,
    ) -> None:
        self._image, self._model, self._releases = image, model, releases
        self._doors = [Door(free_port()) for _ in range(tritons + 1)]
        self._serving = [Triton(releases[0], door) for door in self._doors[:-1]]
        self._spare = self._doors[-1]
        urls = ",".join(f"127.0.0.1:{door.port}" for door in self._doors)
        flags = ("--triton-url", urls, "--default-model", model)
        self._gateways = [gateway(*flags, own_session=False) for _ in range(gateways)]
        self._folder = folder
        self._broken: list[str] = []

    async def run(self, concurrency: int) -> int:
        """Measure both releases; returns 1 if a promise is broken."""
        with contextlib.ExitStack() as stack:
            stack.callback(lambda: [each.stop() for each in self._serving])
            for triton in self._serving:
                triton.launch()
            for triton in self._serving:
                await asyncio.to_thread(triton.wait)
                await triton.door.open(triton.grpc_port)
            for server in self._gateways:
                stack.callback(server.stop)
                server.launch()
            for server in self._gateways:
                await asyncio.to_thread(server.wait)
            ports = stack.enter_context(balanced(self._gateways))
            samples = await peak(self._target(ports, Counter()), concurrency, PEAK_SECONDS)
            rate = LOAD * len(good(samples)) / PEAK_SECONDS
            print(f"load: {rate:.0f} requests per second, half of the peak, at random times")
            await self._good(ports, rate)
            await self._bad(ports, rate)
            for door in self._doors:
                await door.close()
        return 1 if self._broken else 0

    def _target(self, ports: list[int], versions: Counter[str]) -> InTurn:
        targets = []
        for port in ports:
            http = Http(f"http://127.0.0.1:{port}")
            targets.append(
                VersionTarget(
                    http, [http.request("/classify", self._image, "image/jpeg")], versions
                )
            )
        return InTurn(targets)

    async def _good(self, ports: list[int], rate: float) -> None:
        versions: Counter[str] = Counter()
        began = time.monotonic()
        async with arriving(self._target(ports, versions), poisson(rate, 1)) as samples:
            await asyncio.sleep(2)
            for number in range(len(self._serving)):
                new = Triton(self._releases[1], self._spare)
                old, self._serving[number] = self._serving[number], new
                try:
                    await asyncio.to_thread(new.start, START_SECONDS)
                    await new.door.open(new.grpc_port)
                    await asyncio.sleep(MIN_READY_SECONDS)
                finally:
                    await self._leave(old)
            took = time.monotonic() - began
            await asyncio.sleep(2)
            versions.clear()
            await asyncio.sleep(2)
        self._report("good release", samples, f"all exchanged after {took:.0f} s")
        self._hold(set(versions) == {"2"}, f"every answer is the new release's: {dict(versions)}")

    async def _leave(self, old: Triton) -> None:
        """End as a pod does: accept no new connection, serve on for a while, and stop."""
        await old.door.close()
        await asyncio.sleep(DRAIN_SECONDS)
        await asyncio.to_thread(old.stop)
        self._spare = old.door

    async def _bad(self, ports: list[int], rate: float) -> None:
        versions: Counter[str] = Counter()
        bad = Triton(self._releases[2], self._spare)
        statuses = [triton.status_port for triton in (*self._serving, bad)]
        ready = False
        try:
            with prometheus(self._folder, statuses) as watching:
                async with arriving(self._target(ports, versions), poisson(rate, 2)) as samples:
                    bad.launch()
                    deadline = time.monotonic() + BAD_SECONDS
                    while time.monotonic() < deadline and not ready:
                        ready = (await asyncio.to_thread(get, f"{bad.url}/readyz"))[0] == 200
                        await asyncio.sleep(0.2)
                    problems = await asyncio.to_thread(bad.problems)
                    fired = await firing(watching, ALERTS) if watching else None
        finally:
            await asyncio.to_thread(bad.stop)
        self._report("bad release", samples, f"stopped; its status: {problems}")
        self._hold(not ready and self._model in problems, "the bad one never becomes ready")
        self._hold(set(versions) == {"2"}, f"the old one answers everything: {dict(versions)}")
        if fired is None:
            print("no Prometheus here: the alert was not asked for")
        else:
            self._hold(fired == ALERTS, f"the alerts fire: {', '.join(sorted(fired))}")

    def _report(self, name: str, samples: list[Sample], rest: str) -> None:
        errors = Counter(sample.answered.error for sample in samples if sample.answered.error)
        failed = f"{errors.total()} failed {dict(errors) if errors else ''}".rstrip()
        print(f"{name}: {len(samples)} requests, {failed}; {latencies(samples)}; {rest}")
        self._hold(not errors, f"{name}: no request fails")

    def _hold(self, kept: bool, promise: str) -> None:
        print(f"{'kept' if kept else 'BROKEN'}: {promise}")
        if not kept:
            self._broken.append(promise)


if __name__ == "__main__":
    sys.exit(run(main))
