"""The engine of production: all Tritons behind the gateway as one, each used while it answers.

In: addresses, and names that stand for any number of them, resolved again every second. Out: the
`Model` of a name, and answers from the Triton with the fewest calls under way. `retries` says how
often a call that was lost with its Triton is repeated.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from contracts.resizing import Pixels
from server.engines.engine import Engine
from server.engines.model import Entry, Model, Probabilities
from server.engines.triton import retries
from server.engines.triton.addresses import Addresses
from server.engines.triton.assignment import Listing, Pool, answers_for, assign
from server.engines.triton.catalogue import STARTING
from server.engines.triton.circuit_breaker import State
from server.engines.triton.client import Client, TritonClient
from server.engines.triton.replica import FailedOver, Replica
from server.observability import metrics
from server.problems import ModelNotReady, Problem, TritonAway, UnknownModel

logger = logging.getLogger(__name__)

RESOLVE_SECONDS = 1.0


class Balancer(Engine):
    """Made inside the running event loop; `watch` runs as long as the gateway does."""

    def __init__(
        self,
        url: str,
        default: str,
        longest: float,
        connect: Callable[[str], Client] = TritonClient,
        *,
        starts_here: bool = False,
    ) -> None:
        """`url` is HOST:PORT,…; no call takes more than `longest` seconds.

        `starts_here` says that this server starts that Triton itself.
        """
        self.default = default
        self.average_batch: dict[str, float] = {}
        self._longest = longest
        self._connect = connect
        self._starts_here = starts_here
        self._addresses = Addresses(url)
        self._replicas: dict[str, Replica] = {}
        self._entries: dict[str, Entry] = {}
        self._pools: dict[Model, Pool[Replica]] = {}
        self._away: TritonAway | None = TritonAway(
            STARTING if starts_here else f"Triton at {url} has not answered yet"
        )
        self._virtual_time = 0.0  # of start-time fair queueing, in images
        self._lacks_default = False  # has been logged
        self._closing: set[asyncio.Task[None]] = set()
        self._probes: set[asyncio.Task[list[Problem]]] = set()

    def entry(self, name: str) -> Entry:
        """As `Engine.entry`."""
        if self._away is not None:
            raise TritonAway(self._away.detail)
        entry = self._entries.get(name)
        if entry is None:
            names = ", ".join(sorted(self._entries)) or "none"
            raise UnknownModel(f"there is no model {name!r}; there are: {names}")
        return entry

    def entries(self) -> list[Entry]:
        """As `Engine.entries`: all models that any Triton lists."""
        if self._away is not None:
            raise TritonAway(self._away.detail)
        return [self._entries[name] for name in sorted(self._entries)]

    def serving(self, name: str) -> list[Replica]:
        """The Tritons that have loaded the model."""
        entries = ((each, each.catalogue.entries.get(name)) for each in self._present())
        return [replica for replica, entry in entries if isinstance(entry, Model)]

    def _present(self) -> list[Replica]:
        return [each for each in self._replicas.values() if each.catalogue.away is None]

    def instances(self, model: Model) -> int:
        """As `Engine.instances`, for the instances on all Tritons together."""
        return max(model.instances, self._pool(model).instances)

    def slots(self, model: Model) -> int:
        """As `Engine.slots`: on each Triton one call waits for a free instance."""
        return max(model.instances + 1, self._pool(model).slots)

    async def infer(
        self, model: Model, images: Sequence[Pixels], seconds: float, extras: Sequence[str] = ()
    ) -> tuple[Probabilities, str]:
        """As `Engine.infer`, on the Triton with the least to do.

        Only a call that is lost with its Triton is repeated, on another one, within `seconds`.
        """
        end = time.monotonic() + seconds
        replica = self._choose(model, len(images), exclude=[])
        if replica is None:
            if self._away is not None:
                raise TritonAway(self._away.detail)
            raise ModelNotReady(f"no Triton serves model {model.name!r} now")
        tried = [replica]
        left = seconds
        while True:
            try:
                return await replica.infer(model.name, images, left, extras)
            except (TritonAway, ModelNotReady) as problem:
                replica.call_failed(model.name)
                another = None
                if len(tried) <= retries.OTHER_TRITON:
                    another = self._choose(model, len(images), exclude=tried)
                left = end - time.monotonic()
                if another is None or left <= 0:
                    raise
                kind = _kind_of(problem)
            retries.count(kind)
            replica = another
            tried.append(replica)

    async def probe(self, spared: str | None = None) -> list[Problem]:
        """As `Engine.probe`: one Triton that answers for all of its models is enough.

        Returns as soon as one is healthy; the probes of the others go on.
        """
        fewest: list[Problem] = []
        probes = [
            asyncio.create_task(each.probe_all(spared)) for each in self.serving(self.default)
        ]
        for probe in probes:
            self._probes.add(probe)
            probe.add_done_callback(self._probes.discard)
        for done in asyncio.as_completed(probes):
            problems = await done
            if not problems:
                return []
            if not fewest or len(problems) < len(fewest):
                fewest = problems
        return fewest

    async def watch(self) -> None:
        """As `Engine.watch`: follow the addresses that the names stand for."""
        while True:
            found = await self._addresses.resolve()
            if self._addresses.failure is not None and not self._replicas:
                self._away = TritonAway(self._addresses.failure)
            for url in found:
                if url not in self._replicas:
                    self._replicas[url] = Replica(
                        self._connect(url),
                        self.average_batch,
                        self._refresh,
                        starts_here=self._starts_here,
                    )
            for url in self._replicas.keys() - found:
                logger.info("Triton at %s has left", url)
                self._close(self._replicas.pop(url))
                self._refresh()
            await asyncio.sleep(RESOLVE_SECONDS)

    async def close(self, patience: float) -> None:
        """As `Engine.close`."""
        await asyncio.gather(
            *(replica.close(patience) for replica in self._replicas.values()), *self._closing
        )

    def _close(self, replica: Replica) -> None:
        task = asyncio.create_task(replica.close(self._longest))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _choose(self, model: Model, images: int, exclude: Sequence[Replica]) -> Replica | None:
        replicas = [each for each in self._pool(model).replicas if each not in exclude]
        if not replicas:
            return None
        replica = min(replicas, key=lambda each: (each.pending, each.assigned))
        # Start-time fair queueing (Goyal et al., SIGCOMM 1996): a replica that was away gets no
        # more than its share afterwards.
        self._virtual_time = max(self._virtual_time, replica.assigned)
        replica.assigned = self._virtual_time + images
        return replica

    def _pool(self, model: Model) -> Pool[Replica]:
        pool = self._pools.get(model)
        if pool is None:
            # The model was replaced while this request was under way.
            now = self._entries.get(model.name)
            pool = self._pools[now] if answers_for(now, model) else Pool([], 0)
        return pool

    def _refresh(self) -> None:
        """Compute again which replica serves which model; called whenever a replica has changed."""
        present = self._present()
        listings = [Listing(each, each.catalogue.entries, each.broken) for each in present]
        self._entries, self._pools = assign(listings, self._entries)
        self._tell_if_the_default_is_missing()
        if present:
            self._away = None
        elif self._replicas:
            self._away = next(iter(self._replicas.values())).catalogue.away
        self._fail_over()
        metrics.replicas.set(sum(not each.broken for each in present))

    def _tell_if_the_default_is_missing(self) -> None:
        lacks_default = bool(self._entries) and self.default not in self._entries
        if lacks_default and not self._lacks_default:
            logger.warning(
                "there is no default model %r, so this gateway is not ready; there are: %s; "
                "--default-model chooses one",
                self.default,
                ", ".join(sorted(self._entries)),
            )
        self._lacks_default = lacks_default

    def _fail_over(self) -> None:
        """Let calls that wait for a replica which will not answer go to one which does."""
        for model, pool in self._pools.items():
            for replica in self._replicas.values():
                away = replica.catalogue.away is not None
                lost = away or replica.state(model.name) is State.OPEN
                if lost and replica not in pool.replicas:
                    replica.fail_over(model.name)


def _kind_of(problem: TritonAway | ModelNotReady) -> retries.Kind:
    if isinstance(problem, FailedOver):
        return retries.Kind.FAILED_OVER
    return retries.Kind.AWAY if isinstance(problem, TritonAway) else retries.Kind.NOT_READY
