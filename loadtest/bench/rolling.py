"""Restart two gateways behind a load balancer, one after the other, under load.

In: the address of a Triton and an image. Out: how many requests failed; exits with 1 if any did.
It starts the gateways and, in this process, a balancer as plain as can be: it asks each gateway's
/readyz five times a second and sends each connection to the next one that was ready.

    python -m loadtest bench rolling 127.0.0.1:8001 cat.jpg --rate 20
"""

import asyncio
import itertools
import sys
from collections import Counter
from pathlib import Path

from tyro.conf import Positional

from loadtest.bench.programs import run
from loadtest.load import loop
from loadtest.load.arrivals import poisson
from loadtest.load.engine import arriving
from loadtest.load.http import Http
from loadtest.load.http_target import StatusTarget
from loadtest.load.target import Answered
from loadtest.servers.launch import Server, gateway, get

CHECK_SECONDS = 0.2
DRAIN_SECONDS = 2.0


class Balancer:
    """Sends each request, on a connection of its own, to the next gateway that is ready."""

    images = 1

    def __init__(self, gateways: list[Server], image: bytes) -> None:
        self._gateways = gateways
        self._targets = []
        for server in gateways:
            http = Http(server.url)
            request = http.request("/classify", image, "image/jpeg", "Connection: close\r\n")
            self._targets.append(StatusTarget(http, [request]))
        self._ready = [True] * len(gateways)
        self._turns = itertools.count()

    async def watch(self) -> None:
        """Ask each gateway for its /readyz, until this task is cancelled."""
        while True:
            asked = (
                asyncio.to_thread(get, f"{server.url}/readyz", 1.0) for server in self._gateways
            )
            self._ready = [status == 200 for status, _ in await asyncio.gather(*asked)]
            await asyncio.sleep(CHECK_SECONDS)

    async def ask(self, number: int) -> Answered:
        """Send one request."""
        usable = [target for target, ready in zip(self._targets, self._ready, strict=True) if ready]
        if not usable:
            return Answered("no gateway is ready", 0)
        return await usable[next(self._turns) % len(usable)].ask(number)


def main(
    triton_url: Positional[str],
    image: Positional[Path],
    *,
    model: str = "mixer_cifar10",
    rate: float = 20.0,
) -> int:
    """Restart under load; 1 if a request failed.

    Args:
        triton_url: HOST:PORT of Triton's gRPC.
        image: A JPEG.
        model: Which one is asked.
        rate: Requests per second, at random times.
    """
    flags = ("--triton-url", triton_url, "--default-model", model)
    drain = ("--drain-seconds", str(DRAIN_SECONDS))
    gateways = [gateway(*flags, *drain, own_session=False) for _ in range(2)]
    try:
        for server in gateways:
            server.start()
        return loop.run(measure(gateways, image.read_bytes(), rate))
    finally:
        for server in gateways:
            server.stop()


async def measure(gateways: list[Server], image: bytes, rate: float) -> int:
    """Restart under load; 1 if a request failed."""
    balancer = Balancer(gateways, image)
    exits = []
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(balancer.watch())
        async with arriving(balancer, poisson(rate, 0)) as samples:
            for server in gateways:
                await asyncio.sleep(2)
                exits.append(await asyncio.to_thread(server.stop))
                await asyncio.to_thread(server.start)
            await asyncio.sleep(2)
        watching.cancel()
    exits += [await asyncio.to_thread(server.stop) for server in gateways]
    answers = Counter(sample.answered.error or "200" for sample in samples)
    print(f"answers: {dict(answers)}; exit statuses: {exits}")
    return 0 if set(answers) == {"200"} and not any(exits) else 1


if __name__ == "__main__":
    sys.exit(run(main))
