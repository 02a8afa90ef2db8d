"""How long requests wait in a fleet of gateways and Tritons, by simulation, checked by measurement.

In: a fleet and a load; or a running gateway and an image. Out: throughput, latencies and how busy
both sides are; or how far the simulation's predictions are from what was measured.

    python -m loadtest.bench.queueing fleet --rate 1000 --gateways 8 --tritons 2
    python -m loadtest.bench.queueing check http://127.0.0.1:8000 cat.jpg
"""

import argparse
import asyncio
import itertools
import math
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import uvloop

from loadtest.bench.load import Clients, peak
from loadtest.bench.simulation import Fleet, Simulation

LOADS = (0.3, 0.5, 0.7)  # of the peak
ROUNDS = 5  # of each load, between the others, so that a disturbance spoils one of five
LONE = 0.05  # of the peak: a request that meets no other
CONCURRENCIES = (4, 32)  # of the closed loops that `check` calibrates with
LEAST_ANSWERS = 20  # in a window
REQUESTS = 20_000  # simulated for each prediction
STEPS = ("decode", "batch", "image")
WITHIN = 0.15


def tell(fleet: Fleet, rate: float, requests: int) -> None:
    """Simulate a load and print what came of it."""
    run = Simulation(fleet)
    p50, p99 = 1000 * np.percentile(run.at_rate(rate, requests), (50, 99))
    gateways, tritons = fleet.capacity()
    print(f"the gateways can do {gateways:.0f} per second, the Tritons {tritons:.0f}")
    print(
        f"{rate:g} per second: {requests / run.now:.1f} answered, median {p50:.1f} ms, "
        f"p99 {p99:.1f} ms; decoding {run.decoding / run.now / fleet.gateways / fleet.threads:.0%} "
        f"busy, inference {run.inferring / run.now / fleet.tritons / fleet.instances:.0%}"
    )


def calibrated(fleet: Fleet, lone: float, measured: dict[int, float]) -> Fleet:
    """The fleet in which a lone request takes `lone` seconds, and whose closed loops answer as many
    per second as was measured, by concurrency."""

    def fitting(candidate: Fleet) -> Fleet:
        factor = lone / (candidate.decode + candidate.batch + candidate.picture)
        steps = {name: factor * getattr(candidate, name) for name in STEPS}
        return replace(candidate, **steps)

    def misfit(candidate: Fleet) -> float:
        return sum(
            math.log(Simulation(candidate).peak(clients, 1500) / rate) ** 2
            for clients, rate in measured.items()
        )

    # One step after another is made longer or shorter, by less and less.
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


async def at_random(clients: Clients, rate: float, seconds: float, seed: int) -> float:
    """Requests at random times, whether or not earlier ones are answered; answers per second."""
    random = np.random.default_rng(seed)
    moments = np.cumsum(random.exponential(1 / rate, int(rate * seconds)))
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for moment in moments:
            await asyncio.sleep(max(0.0, began + moment - time.perf_counter()))
            group.create_task(clients.ask())
    good = sum(status == 200 for status, _ in clients.answers)
    return good / (time.perf_counter() - began)


class Seen(NamedTuple):
    """What one window of a load came to."""

    throughput: float  # answers per second
    median: float  # milliseconds
    p99: float


def seen(throughput: float, seconds: npt.NDArray[np.float64] | list[float]) -> Seen:
    """One window, from the seconds of each answer."""
    p50, p99 = 1000 * np.percentile(seconds, (50, 99))
    return Seen(throughput, float(p50), float(p99))


def typical(windows: list[Seen]) -> Seen:
    """Of each number the median."""
    return Seen(*map(statistics.median, zip(*windows, strict=True)))


async def measured_loads(
    options: argparse.Namespace, rates: dict[float, float]
) -> dict[float, list[Seen]]:
    """All rounds of all loads, whose `rates` are per second."""
    picture = options.picture.read_bytes()
    windows: dict[float, list[Seen]] = {load: [] for load in rates}
    for number in range(ROUNDS):
        for load in list(rates)[:: -1 if number % 2 else 1]:
            clients = Clients(options.url, picture, 30)
            answered = await at_random(clients, rates[load], options.seconds / ROUNDS, number)
            good = [spent for status, spent in clients.answers if status == 200]
            if len(good) < LEAST_ANSWERS:
                sys.exit(f"{len(good)} good answers tell no p99; give it more --seconds")
            windows[load].append(seen(answered, good))
            clients.close()
    return windows


def predicted_load(fleet: Fleet, rate: float, seconds: float) -> Seen:
    """What windows of so many seconds should come to: a short one has a lower p99 than a long."""
    run = Simulation(fleet)
    latencies = run.at_rate(rate, REQUESTS)
    count = max(1, len(latencies) // max(1, round(rate * seconds)))
    return typical([seen(REQUESTS / run.now, part) for part in np.array_split(latencies, count)])


async def check(options: argparse.Namespace, fleet: Fleet) -> int:
    """Measure closed loops and open ones, fit the fleet to the closed ones and to lone requests,
    predict the open ones; 1 if a prediction is off."""
    picture = options.picture.read_bytes()
    await peak(Clients(options.url, picture, 30), 2.0, 8)  # a warm-up
    measured = {}
    for concurrency in CONCURRENCIES:
        clients = Clients(options.url, picture, 30)
        measured[concurrency] = await peak(clients, options.seconds / 2, concurrency)
        if not measured[concurrency]:
            sys.exit(f"{options.url} classified nothing")
    # Lone requests at random times, and not one after another: caches and cores have cooled.
    rates = {load: load * max(measured.values()) for load in (LONE, *LOADS)}
    windows = await measured_loads(options, rates)
    lone = typical(windows[LONE])
    fitted = fleet
    for _ in range(2):  # the second time with the jitter that was found
        fitted = calibrated(fitted, lone.median / 1000, measured)
        # What varies is what makes the slowest of the lone requests as slow as they were.
        fitted = min(
            (replace(fitted, jitter=jitter / 50) for jitter in range(1, 41)),
            key=lambda each: abs(
                predicted_load(each, rates[LONE], options.seconds / ROUNDS).p99 - lone.p99
            ),
        )
    fits = {n: Simulation(fitted).peak(n, 3000) for n in measured}
    print(
        "closed loops, measured and fitted: "
        + ", ".join(f"{n} clients {measured[n]:.0f}/s, {fits[n]:.0f}/s" for n in measured)
    )
    print(
        f"decode {1000 * fitted.decode:.2f} ms, batch {1000 * fitted.batch:.2f} ms "
        f"+ {1000 * fitted.picture:.2f} ms per image, jitter {fitted.jitter:.2f}"
    )
    print(f"lone requests: median {lone.median:.1f} ms, p99 {lone.p99:.1f} ms")
    off = 0
    for load in LOADS:
        predicted = predicted_load(fitted, rates[load], options.seconds / ROUNDS)
        row = []
        for name, one, other in zip(Seen._fields, predicted, typical(windows[load]), strict=True):
            row.append(f"{name} {one:.1f} predicted, {other:.1f} measured ({one / other - 1:+.0%})")
            off += name != "median" and abs(one / other - 1) > WITHIN
        each = ", ".join(f"{window.p99:.1f}" for window in windows[load])
        print(f"{load:.0%} of the peak: {'; '.join(row)}; p99 of each window {each}")
    print(f"{off} predictions of throughput or p99 are more than {WITHIN:.0%} off")
    return 1 if off else 0


def main() -> int:
    """Read the command line, simulate or measure; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.queueing", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    simulate = commands.add_parser("fleet", help="simulate a fleet under a load")
    simulate.add_argument("--rate", type=float, required=True, help="images per second")
    simulate.add_argument("--requests", type=int, default=50_000, help="how many to simulate")
    against = commands.add_parser("check", help="compare with a running gateway")
    against.add_argument("url", help="address of the gateway")
    against.add_argument("image", type=Path, help="a JPEG")
    against.add_argument("--seconds", type=float, default=30.0, help="for each load")
    for command in (simulate, against):
        command.add_argument("--gateways", type=int, default=1)
        command.add_argument("--threads", type=int, default=1, help="that decode, in each gateway")
        command.add_argument("--tritons", type=int, default=1)
        command.add_argument("--instances", type=int, default=1, help="of the model in each Triton")
        command.add_argument("--max-batch", type=int, default=32)
    simulate.add_argument("--jitter", type=float, default=Fleet.jitter)
    simulate.add_argument("--decode-ms", type=float, default=1000 * Fleet.decode)
    simulate.add_argument("--batch-ms", type=float, default=1000 * Fleet.batch)
    simulate.add_argument("--picture-ms", type=float, default=1000 * Fleet.picture)
    options = parser.parse_args()
    names = ("gateways", "threads", "tritons", "instances", "max_batch")
    fleet = Fleet(**{name: getattr(options, name) for name in names})
    if options.command == "check":
        return uvloop.run(check(options, fleet))
    steps = {name: getattr(options, f"{name}_ms") / 1000 for name in STEPS}
    tell(replace(fleet, jitter=options.jitter, **steps), options.rate, options.requests)
    return 0


if __name__ == "__main__":
    sys.exit(main())
