"""A fleet of gateways and Tritons, simulated event by event.

In: the numbers of gateways and Tritons, the seconds that each step takes, and the load. Out: the
seconds of each answer, and how busy gateways and Tritons were.

The simulated gateway has a queue before its decoding threads. It sends the decoded images as one
call to the Triton with the fewest calls of this gateway. The calls to a Triton are limited: they
keep every instance busy, and one more call waits. Triton joins calls up to its largest batch. Each
machine is assumed to have enough cores for its work.

How requests reach the gateways is simulated as well: a balancer of requests gives each to the next
gateway; a balancer of connections (a Service of Kubernetes with an address of its own) chooses one
at random for each connection, which then sends all of its requests there.
"""

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Fleet:
    """The size of a fleet, and the seconds of each step; b images take `batch` + b × `image`.

    `jitter` is the standard deviation of the logarithm of each of these times. `mix` describes the
    sizes of images: the share of each size, and its decoding time as a multiple of `decode`.
    """

    gateways: int = 1
    threads: int = 1  # decoding threads in each gateway
    tritons: int = 1
    instances: int = 1  # in each Triton
    max_batch: int = 32
    decode: float = 0.004
    batch: float = 0.002
    image: float = 0.001
    jitter: float = 0.1
    mix: tuple[tuple[float, float], ...] = ((1.0, 1.0),)

    def capacity(self) -> tuple[float, float]:
        """The requests per second that the gateways can do, and those that the Tritons can do."""
        full = self.batch / self.max_batch + self.image
        decode = self.decode * sum(share * times for share, times in self.mix)
        return self.gateways * self.threads / decode, self.tritons * self.instances / full


@dataclass(frozen=True)
class Clients:
    """How requests reach the gateways.

    With `connections` above 0, each connection stays with one gateway; a request takes a random
    connection, and a connection is closed after `requests` requests (0: never). With 0 connections
    a balancer gives each request to the next gateway.
    """

    connections: int = 0
    requests: int = 0


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
            took = self._run.spend(self._run.decode_seconds())
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
            took = self._run.spend(fleet.batch + size * fleet.image)
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

    def __init__(self, fleet: Fleet, seed: int = 0, clients: Clients = Clients()) -> None:
        self.fleet = fleet
        self._clients = clients
        self.now = 0.0
        self.decoding = self.inferring = 0.0  # seconds, over all threads and all instances
        self.began: list[float] = []
        self.latencies: dict[int, float] = {}
        self._random = np.random.default_rng(seed)
        self.tritons = [Triton(self) for _ in range(fleet.tritons)]
        self._gateways = [Gateway(self) for _ in range(fleet.gateways)]
        self._connections = [self._any_gateway() for _ in range(clients.connections)]
        self._sent = [0] * clients.connections
        self._factors = np.array([times for _, times in fleet.mix])
        self._shares = np.cumsum([share for share, _ in fleet.mix])
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._ask_again = False

    def at_rate(self, rate: float, requests: int) -> npt.NDArray[np.float64]:
        """The seconds of each answer to requests at random times, without the first tenth."""
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

    def connections_of(self, gateway: int) -> int:
        """How many connections are with a gateway now."""
        return self._connections.count(self._gateways[gateway])

    def chance(self) -> float:
        """A random number between 0 and 1."""
        return self._random.random()

    def decode_seconds(self) -> float:
        """The decoding time of the next image, whose size is drawn from the mix."""
        if len(self._factors) == 1:
            return self.fleet.decode
        drawn = int(np.searchsorted(self._shares, self.chance() * self._shares[-1], side="right"))
        return self.fleet.decode * float(self._factors[drawn])

    def spend(self, seconds: float) -> float:
        """The time that a step takes in this case, with jitter."""
        return seconds * math.exp(self.fleet.jitter * self._random.standard_normal())

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        """Call `do` when so many simulated seconds have passed."""
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), do))

    def end(self, requests: list[int]) -> None:
        """Note that these requests have been answered."""
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
        self._gateway_for(number).arrive(number)

    def _any_gateway(self) -> Gateway:
        return self._gateways[int(self._random.integers(len(self._gateways)))]

    def _gateway_for(self, number: int) -> Gateway:
        if not self._connections:
            return self._gateways[number % len(self._gateways)]
        used = int(self._random.integers(len(self._connections)))
        if self._clients.requests and self._sent[used] >= self._clients.requests:
            self._connections[used], self._sent[used] = self._any_gateway(), 0
        self._sent[used] += 1
        return self._connections[used]
