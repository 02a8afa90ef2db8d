"""How long requests wait in a fleet of gateways and Tritons, by simulation, checked by measurement.

In: a fleet and a load; or a running gateway and an image. Out: throughput, latencies and how busy
both sides are; or how far the simulation's predictions are from what was measured.

    python -m loadtest bench queueing fleet --rate 1000 --gateways 8 --tritons 2
    python -m loadtest bench queueing check http://127.0.0.1:8000 cat.jpg
"""

import itertools
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
import tyro
from tyro.conf import Positional

from loadtest.bench import programs
from loadtest.bench.simulation import Clients, Fleet, Simulation
from loadtest.load import loop
from loadtest.load.arrivals import poisson
from loadtest.load.engine import at_rate, peak
from loadtest.load.http_target import status_target
from loadtest.stats.samples import good
from loadtest.usage import UsageError

DEADLINE_SECONDS = 30.0  # of each request
LOADS = (0.3, 0.5, 0.7)  # of the peak
ROUNDS = 5  # of each load; loads take turns, so that a disturbance spoils one window of five
LONE = 0.05  # of the peak: a load at which a request meets no other request
CONCURRENCIES = (4, 32)  # of the closed loops that `check` calibrates with
LEAST_ANSWERS = 20  # in a window
REQUESTS = 20_000  # simulated for each prediction
STEPS = ("decode", "batch", "image")
WITHIN = 0.15


def tell(fleet: Fleet, rate: float, requests: int, clients: Clients) -> None:
    """Simulate a load and print the throughput, the latencies and the utilisation."""
    run = Simulation(fleet, clients=clients)
    p50, p99 = 1000 * np.percentile(run.at_rate(rate, requests), (50, 99))
    gateways, tritons = fleet.capacity()
    print(f"the gateways can do {gateways:.0f} per second, the Tritons {tritons:.0f}")
    print(
        f"{rate:g} per second: {requests / run.now:.1f} answered, median {p50:.1f} ms, "
        f"p99 {p99:.1f} ms; decoding {run.decoding / run.now / fleet.gateways / fleet.threads:.0%} "
        f"busy, inference {run.inferring / run.now / fleet.tritons / fleet.instances:.0%}"
    )


def calibrated(fleet: Fleet, lone: float, measured: dict[int, float]) -> Fleet:
    """Fit the seconds of each step to measurements.

    In the fitted fleet a lone request takes `lone` seconds, and a closed loop of each concurrency
    answers as many requests per second as `measured` says.
    """

    def fitting(candidate: Fleet) -> Fleet:
        factor = lone / (candidate.decode + candidate.batch + candidate.image)
        steps = {name: factor * getattr(candidate, name) for name in STEPS}
        return replace(candidate, **steps)

    def misfit(candidate: Fleet) -> float:
        return sum(
            math.log(Simulation(candidate).peak(clients, 1500) / rate) ** 2
            for clients, rate in measured.items()
        )

    # The seconds of each step in turn are raised and lowered, by smaller and smaller factors.
    best = fitting(fleet)
    least = misfit(best)
    factor = 2.0
    while factor > 1.01:
        better = False
        for name, times in itertools.product(STEPS, (factor, 1 / factor)):
            candidate = fitting(replace(best, **{name: getattr(best, name) * times}))
            if (found := misfit(candidate)) < least:
                best, least, better = candidate, found, True
        if not better:
            factor = math.sqrt(factor)
    return best


class Seen(NamedTuple):
    """The figures of one window of a load."""

    throughput: float  # answers per second
    median: float  # milliseconds
    p99: float


def seen(throughput: float, seconds: npt.NDArray[np.float64] | Sequence[float]) -> Seen:
    """The figures of one window, from the seconds of each answer."""
    p50, p99 = 1000 * np.percentile(seconds, (50, 99))
    return Seen(throughput, float(p50), float(p99))


def typical(windows: list[Seen]) -> Seen:
    """The median of each figure over the windows."""
    return Seen(*map(statistics.median, zip(*windows, strict=True)))


async def measured_loads(
    url: str, image: bytes, seconds: float, rates: dict[float, float]
) -> dict[float, list[Seen]]:
    """Measure all rounds of all loads; `rates` are in requests per second."""
    windows: dict[float, list[Seen]] = {load: [] for load in rates}
    for number in range(ROUNDS):
        for load in list(rates)[:: -1 if number % 2 else 1]:
            target = status_target(url, image, deadline=DEADLINE_SECONDS)
            samples = await at_rate(target, poisson(rates[load], number), seconds / ROUNDS)
            target.close()
            answered = good(samples)
            if len(answered) < LEAST_ANSWERS:
                raise UsageError(f"{len(answered)} good answers tell no p99; give more --seconds")
            took = max(sample.done for sample in samples) - min(sample.due for sample in samples)
            latencies = [sample.seconds for sample in answered]
            windows[load].append(seen(len(answered) / took, latencies))
    return windows


def predicted_load(fleet: Fleet, rate: float, seconds: float) -> Seen:
    """The predicted figures of windows of so many seconds; a short window has a lower p99."""
    run = Simulation(fleet)
    latencies = run.at_rate(rate, REQUESTS)
    count = max(1, len(latencies) // max(1, round(rate * seconds)))
    return typical([seen(REQUESTS / run.now, part) for part in np.array_split(latencies, count)])


async def check(url: str, image: bytes, seconds: float, fleet: Fleet) -> int:
    """Compare predictions with measurements; returns 1 if a prediction is off.

    Closed and open loops are measured. The fleet is fitted to the closed loops and to lone
    requests, and predicts the open loops.
    """

    async def most(concurrency: int, for_seconds: float) -> float:
        target = status_target(url, image, deadline=DEADLINE_SECONDS)
        answered = good(await peak(target, concurrency, for_seconds))
        target.close()
        return len(answered) / for_seconds

    await most(8, 2.0)  # a warm-up
    measured = {}
    for concurrency in CONCURRENCIES:
        measured[concurrency] = await most(concurrency, seconds / 2)
        if not measured[concurrency]:
            raise UsageError(f"{url} classified nothing")
    # Lone requests come at random times and not back to back, so that caches and clock rates are
    # those of a server at low load.
    rates = {load: load * max(measured.values()) for load in (LONE, *LOADS)}
    windows = await measured_loads(url, image, seconds, rates)
    lone = typical(windows[LONE])
    fitted = fleet
    for _ in range(2):  # the second pass uses the jitter that the first one found
        fitted = calibrated(fitted, lone.median / 1000, measured)
        # The jitter is chosen so that the predicted p99 of lone requests is the measured one.
        fitted = min(
            (replace(fitted, jitter=jitter / 50) for jitter in range(1, 41)),
            key=lambda each: abs(
                predicted_load(each, rates[LONE], seconds / ROUNDS).p99 - lone.p99
            ),
        )
    fits = {n: Simulation(fitted).peak(n, 3000) for n in measured}
    print(
        "closed loops, measured and fitted: "
        + ", ".join(f"{n} clients {measured[n]:.0f}/s, {fits[n]:.0f}/s" for n in measured)
    )
    print(
        f"decode {1000 * fitted.decode:.2f} ms, batch {1000 * fitted.batch:.2f} ms "
        f"+ {1000 * fitted.image:.2f} ms per image, jitter {fitted.jitter:.2f}"
    )
    print(f"lone requests: median {lone.median:.1f} ms, p99 {lone.p99:.1f} ms")
    off = 0
    for load in LOADS:
        predicted = predicted_load(fitted, rates[load], seconds / ROUNDS)
        row = []
        for name, one, other in zip(Seen._fields, predicted, typical(windows[load]), strict=True):
            row.append(f"{name} {one:.1f} predicted, {other:.1f} measured ({one / other - 1:+.0%})")
            off += name != "median" and abs(one / other - 1) > WITHIN
        each = ", ".join(f"{window.p99:.1f}" for window in windows[load])
        print(f"{load:.0%} of the peak: {'; '.join(row)}; p99 of each window {each}")
    print(f"{off} predictions of throughput or p99 are more than {WITHIN:.0%} off")
    return 1 if off else 0


@dataclass(frozen=True)
class Machines:
    """The sizes of a fleet.

    Args:
        gateways: How many.
        threads: That decode, in each gateway.
        tritons: How many.
        instances: Of the model in each Triton.
        max_batch: Images in the largest batch.
    """

    gateways: int = Fleet.gateways
    threads: int = Fleet.threads
    tritons: int = Fleet.tritons
    instances: int = Fleet.instances
    max_batch: int = Fleet.max_batch

    def fleet(self) -> Fleet:
        """The fleet of that size, with the default seconds of each step."""
        return Fleet(self.gateways, self.threads, self.tritons, self.instances, self.max_batch)


# Its fields are flags without a prefix.
Size = Annotated[Machines, tyro.conf.arg(name="")]


def fleet_command(
    size: Size,
    *,
    rate: float,
    requests: int = 50_000,
    jitter: float = Fleet.jitter,
    decode_ms: float = 1000 * Fleet.decode,
    batch_ms: float = 1000 * Fleet.batch,
    image_ms: Annotated[float, tyro.conf.arg(aliases=["--picture-ms"])] = 1000 * Fleet.image,
    mix: tuple[tuple[float, float], ...] = Fleet.mix,
    connections: int = 0,
    requests_per_connection: int = 0,
) -> int:
    """Simulate a fleet under a load.

    Args:
        size: Of the fleet.
        rate: Images per second.
        requests: How many to simulate.
        jitter: Standard deviation of the logarithm of each time.
        decode_ms: Of one image.
        batch_ms: Of a batch, whatever is in it.
        image_ms: Of each image in a batch.
        mix: Sizes of images: the share of each, and how many times --decode-ms it takes.
        connections: That each stay with one gateway, as behind a Service of Kubernetes; 0: a
            balancer gives each request to the next gateway.
        requests_per_connection: After which a connection is closed and opened anew; 0: never.
    """
    decode, batch, image = decode_ms / 1000, batch_ms / 1000, image_ms / 1000
    if not mix or any(share < 0 or times <= 0 for share, times in mix):
        raise UsageError("--mix has pairs of a share and a positive factor: 0.9 1 0.1 5")
    fleet = replace(size.fleet(), decode=decode, batch=batch, image=image, jitter=jitter, mix=mix)
    tell(fleet, rate, requests, Clients(connections, requests_per_connection))
    return 0


def check_command(
    url: Positional[str], image: Positional[Path], size: Size, *, seconds: float = 30.0
) -> int:
    """Compare with a running gateway; 1 if a prediction is off.

    Args:
        url: Address of the gateway.
        image: A JPEG.
        size: Of the fleet that runs.
        seconds: For each load.
    """
    return loop.run(check(url, image.read_bytes(), seconds, size.fleet()))


COMMANDS: dict[str, Callable[..., int]] = {"fleet": fleet_command, "check": check_command}


if __name__ == "__main__":
    sys.exit(programs.run_commands(COMMANDS, __doc__, "queueing"))
