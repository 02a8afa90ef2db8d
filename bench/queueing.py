"""How long requests wait in a fleet of gateways and Tritons, by simulation.

In: how many there are, the seconds that each step takes, and the load. Out: throughput, latencies
and how busy both sides are. What is simulated is what the gateway does: a queue before its decoding
threads; then whatever has gathered goes to the Triton with the fewest calls of this gateway, as
long as these are no more than keep every instance busy and one call waiting; Triton joins calls up
to its largest batch. Each machine is taken to have the cores for its work.

    python -m bench.queueing fleet --rate 1000 --gateways 8 --tritons 2
    python -m bench.queueing check http://127.0.0.1:8000 cat.jpg
"""

import argparse
import asyncio
import heapq
import itertools
import math
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import uvloop

from bench.overload import Clients, peak

LOADS = (0.3, 0.5, 0.7)  # of the peak
ROUNDS = 5  # of each load, between the others, so that a disturbance spoils one of five
LONE = 0.05  # of the peak: a request that meets no other
CONCURRENCIES = (4, 32)  # of the closed loops that `check` calibrates with
LEAST_ANSWERS = 20  # in a window
REQUESTS = 20_000  # simulated for each prediction
STEPS = ("decode", "batch", "picture")
WITHIN = 0.15


@dataclass(frozen=True)
class Fleet:
    """How many, and the seconds of each step; a batch of b pictures takes `batch` + b × `picture`.

    `jitter` is the standard deviation of the logarithm of each of these times.
    """

    gateways: int = 1
    threads: int = 1  # that decode, in each gateway
    tritons: int = 1
    instances: int = 1  # in each Triton
    max_batch: int = 32
    decode: float = 0.004
    batch: float = 0.002
    picture: float = 0.001
    jitter: float = 0.1

    def capacity(self) -> tuple[float, float]:
        """Requests per second that the gateways and that the Tritons can do."""
        full = self.batch / self.max_batch + self.picture
        return self.gateways * self.threads / self.decode, self.tritons * self.instances / full


@dataclass
class Call:
    """Some requests under way from a gateway to a Triton."""

    gateway: "Gateway"
    requests: list[int]


class Gateway:
    """Decoding threads, then one call after another to the Tritons."""

    def __init__(self, run: "Simulation") -> None:
        self._run = run
        self._idle = run.fleet.threads
        self._arrived: deque[int] = deque()
        self._decoded: list[int] = []
        self._pending = dict.fromkeys(run.tritons, 0)
        self._given = {triton: run.chance() for triton in run.tritons}

    def arrive(self, request: int) -> None:
        self._arrived.append(request)
        self._decode()

    def answered(self, triton: "Triton") -> None:
        self._pending[triton] -= 1
        self._send()

    def _decode(self) -> None:
        while self._idle and self._arrived:
            request = self._arrived.popleft()
            self._idle -= 1
            took = self._run.spend(self._run.fleet.decode)
            self._run.decoding += took
            self._run.after(took, partial(self._done, request))

    def _done(self, request: int) -> None:
        self._idle += 1
        self._decoded.append(request)
        self._send()
        self._decode()

    def _send(self) -> None:
        fleet = self._run.fleet
        while self._decoded and sum(self._pending.values()) < fleet.tritons * (fleet.instances + 1):
            requests = self._decoded[: fleet.max_batch]
            del self._decoded[: fleet.max_batch]
            triton = min(self._pending, key=lambda t: (self._pending[t], self._given[t]))
            self._given[triton] += len(requests)
            self._pending[triton] += 1
            triton.take(Call(self, requests))


class Triton:
    """Instances that each work on a batch of the calls that wait."""

    def __init__(self, run: "Simulation") -> None:
        self._run = run
        self._idle = run.fleet.instances
        self._waiting: deque[Call] = deque()

    def take(self, call: Call) -> None:
        self._waiting.append(call)
        self._start()

    def _start(self) -> None:
        fleet = self._run.fleet
        while self._idle and self._waiting:
            calls = [self._waiting.popleft()]
            size = len(calls[0].requests)
            while self._waiting and size + len(self._waiting[0].requests) <= fleet.max_batch:
                calls.append(self._waiting.popleft())
                size += len(calls[-1].requests)
            self._idle -= 1
            took = self._run.spend(fleet.batch + size * fleet.picture)
            self._run.inferring += took
            self._run.after(took, partial(self._done, calls))

    def _done(self, calls: list[Call]) -> None:
        self._idle += 1
        for call in calls:
            self._run.end(call.requests)
            call.gateway.answered(self)
        self._start()


class Simulation:
    """One run of a fleet."""

    def __init__(self, fleet: Fleet, seed: int = 0) -> None:
        self.fleet = fleet
        self.now = 0.0
        self.decoding = self.inferring = 0.0  # seconds, over all threads and all instances
        self.began: list[float] = []
        self.latencies: dict[int, float] = {}
        self._random = np.random.default_rng(seed)
        self.tritons = [Triton(self) for _ in range(fleet.tritons)]
        self._gateways = [Gateway(self) for _ in range(fleet.gateways)]
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._ask_again = False

    def at_rate(self, rate: float, requests: int) -> npt.NDArray[np.float64]:
        """Seconds of each answer to arrivals at random times, the first tenth left out."""
        for moment in np.cumsum(self._random.exponential(1 / rate, requests)):
            self.after(float(moment), self._arrive)
        while self._events:
            self._step()
        return np.array([self.latencies[i] for i in range(requests // 10, requests)])

    def peak(self, clients: int, requests: int) -> float:
        """Answers per second to clients that ask again as soon as they are answered."""
        self._ask_again = True
        for _ in range(clients):
            self._arrive()
        while len(self.latencies) < requests:
            self._step()
        return requests / self.now

    def chance(self) -> float:
        """Between 0 and 1."""
        return self._random.random()

    def spend(self, seconds: float) -> float:
        """How long a step takes this time."""
        return seconds * math.exp(self.fleet.jitter * self._random.standard_normal())

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        """Something that happens later."""
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), do))

    def end(self, requests: list[int]) -> None:
        """They have been answered."""
        for request in requests:
            self.latencies[request] = self.now - self.began[request]
            if self._ask_again:
                self._arrive()

    def _step(self) -> None:
        self.now, _, do = heapq.heappop(self._events)
        do()

    def _arrive(self) -> None:
        number = len(self.began)
        self.began.append(self.now)
        # As a proxy does that sends each request to the next one.
        self._gateways[number % len(self._gateways)].arrive(number)


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
        f"+ {1000 * fitted.picture:.2f} ms per picture, jitter {fitted.jitter:.2f}"
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
    parser = argparse.ArgumentParser(prog="python -m bench.queueing", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    simulate = commands.add_parser("fleet", help="simulate a fleet under a load")
    simulate.add_argument("--rate", type=float, required=True, help="pictures per second")
    simulate.add_argument("--requests", type=int, default=50_000, help="how many to simulate")
    against = commands.add_parser("check", help="compare with a running gateway")
    against.add_argument("url", help="address of the gateway")
    against.add_argument("picture", type=Path, help="a JPEG")
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
