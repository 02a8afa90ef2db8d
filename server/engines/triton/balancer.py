"""All Tritons behind the gateway as one: found by name, each used as long as it answers.

In: addresses, and names that stand for any number of them, resolved again every second. Out: the
`Model` of a name, and answers from the Triton with the fewest calls under way. A call that is lost
with its Triton is repeated once, on another: classification changes nothing, so it does no harm.
"""

import asyncio
import itertools
import logging
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

from contracts.resizing import Pixels
from server.engines.triton.catalogue import Entry, Unusable
from server.engines.triton.client import Probabilities
from server.engines.triton.model import Model
from server.engines.triton.replica import Replica
from server.observability import metrics
from server.problems import ModelNotReady, TritonAway, UnknownModel

logger = logging.getLogger(__name__)

RESOLVE_SECONDS = 1.0


@dataclass(frozen=True)
class Team:
    """The replicas that answer for one model now, and how many batches they work on at once."""

    replicas: list[Replica]
    instances: int

    @property
    def slots(self) -> int:
        """As many calls, and one more for each Triton."""
        return self.instances + len(self.replicas)


class Replicas:
    """Made inside the running event loop; `watch` runs as long as the gateway does."""

    def __init__(self, url: str, default: str, longest: float) -> None:
        """`url` is HOST:PORT,…; no call takes more than `longest` seconds."""
        self.default = default
        self.average_batch: dict[str, float] = {}
        self._longest = longest
        self._found: dict[str, list[str]] = {each: [] for each in url.split(",")}
        self._replicas: dict[str, Replica] = {}
        self._entries: dict[str, Entry] = {}
        self._teams: dict[Model, Team] = {}
        self._away: TritonAway | None = TritonAway(f"Triton at {url} has not answered yet")
        self._given = 0.0
        self._lacks_default = False  # has been logged
        self._closing: set[asyncio.Task[None]] = set()

    def get(self, name: str) -> Model:
        """The model to serve `name` with.

        Raises `TritonAway`, `UnknownModel`, `ModelNotReady` or `ContractBroken`.
        """
        entry = self.entry(name)
        if isinstance(entry, Unusable):
            raise type(entry.problem)(entry.problem.detail)
        return entry

    def entry(self, name: str) -> Entry:
        """The model or why it cannot be served. Raises `TritonAway` or `UnknownModel`."""
        if self._away is not None:
            raise TritonAway(self._away.detail)
        entry = self._entries.get(name)
        if entry is None:
            names = ", ".join(sorted(self._entries)) or "none"
            raise UnknownModel(f"there is no model {name!r}; there are: {names}")
        return entry

    def entries(self) -> list[Entry]:
        """All models that any Triton lists, by name. Raises `TritonAway`."""
        if self._away is not None:
            raise TritonAway(self._away.detail)
        return [self._entries[name] for name in sorted(self._entries)]

    def serving_default(self) -> list[Replica]:
        """The Tritons that have loaded the default model."""
        entries = ((each, each.models.entries.get(self.default)) for each in self._present())
        return [replica for replica, entry in entries if isinstance(entry, Model)]

    def _present(self) -> list[Replica]:
        return [each for each in self._replicas.values() if each.models.away is None]

    def instances(self, model: Model) -> int:
        """Calls that give every instance of the model, wherever it is, a batch to work on."""
        return max(model.instances, self._team(model).instances)

    def slots(self, model: Model) -> int:
        """As many calls, and for each Triton one that waits until an instance is done."""
        return max(model.instances + 1, self._team(model).slots)

    async def infer(
        self, model: Model, images: Sequence[Pixels], seconds: float
    ) -> tuple[Probabilities, str]:
        """As `TritonClient.infer`, on the replica with the least to do.

        Only what is lost with a replica is repeated: once, on another one, within `seconds`.
        """
        end = time.monotonic() + seconds
        replica = self._choose(model, len(images), but=None)
        if replica is None:
            if self._away is not None:
                raise TritonAway(self._away.detail)
            raise ModelNotReady(f"no Triton serves model {model.name!r} now")
        try:
            return await replica.infer(model.name, images, seconds)
        except (TritonAway, ModelNotReady):
            replica.doubt(model.name)
            another = self._choose(model, len(images), but=replica)
            left = end - time.monotonic()
            if another is None or left <= 0:
                raise
        metrics.repeated.inc()
        try:
            return await another.infer(model.name, images, left)
        except (TritonAway, ModelNotReady):
            another.doubt(model.name)
            raise

    async def watch(self) -> None:
        """Keep up with the addresses that the names stand for, for ever."""
        while True:
            await asyncio.gather(*(self._resolve(name) for name in self._found))
            wanted = dict.fromkeys(itertools.chain(*self._found.values()))
            for url in wanted:
                if url not in self._replicas:
                    self._replicas[url] = Replica(url, self.average_batch, self._refresh)
            for url in self._replicas.keys() - wanted.keys():
                logger.info("Triton at %s has left", url)
                self._close(self._replicas.pop(url))
                self._refresh()
            await asyncio.sleep(RESOLVE_SECONDS)

    async def close(self, patience: float) -> None:
        """Let the calls under way end, for at most `patience` seconds, then disconnect."""
        await asyncio.gather(
            *(replica.close(patience) for replica in self._replicas.values()), *self._closing
        )

    def _close(self, replica: Replica) -> None:
        task = asyncio.create_task(replica.close(self._longest))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _resolve(self, name: str) -> None:
        host, _, port = name.rpartition(":")
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                host.strip("[]"), int(port), type=socket.SOCK_STREAM
            )
        except (OSError, UnicodeError) as error:
            # Those that are known are used on: a resolver fails more often than all Tritons do.
            logger.log(
                logging.DEBUG if self._found[name] else logging.WARNING,
                "%s cannot be resolved: %s",
                host,
                error,
            )
            if not self._replicas:
                self._away = TritonAway(f"Triton's name {host!r} cannot be resolved: {error}")
            return
        # A name with addresses of both kinds would count each Triton twice.
        hosts: dict[int, list[str]] = {socket.AF_INET: [], socket.AF_INET6: []}
        for family, *_, address in found:
            hosts[family].append(str(address[0]))
        self._found[name] = [f"{ip}:{port}" for ip in hosts[socket.AF_INET]] or [
            f"[{ip}]:{port}" for ip in hosts[socket.AF_INET6]
        ]

    def _choose(self, model: Model, pictures: int, but: Replica | None) -> Replica | None:
        team = [each for each in self._team(model).replicas if each is not but]
        if not team:
            return None
        replica = min(team, key=lambda each: (each.pending, each.given))
        # Start-time fair queueing (Goyal et al., SIGCOMM 1996): who was away is owed nothing.
        self._given = max(self._given, replica.given)
        replica.given = self._given + pictures
        return replica

    def _team(self, model: Model) -> Team:
        team = self._teams.get(model)
        if team is None:
            # The model was exchanged while this request was under way.
            now = self._entries.get(model.name)
            team = self._teams[now] if _same(now, model) else Team([], 0)
        return team

    def _refresh(self) -> None:
        """Find out anew who serves what; called whenever a replica has changed."""
        present = self._present()
        entries: dict[str, Entry] = {}
        teams: dict[Model, Team] = {}
        for name in dict.fromkeys(name for each in present for name in each.models.entries):
            listed = [(each, each.models.entries.get(name)) for each in present]
            kinds: list[list[tuple[Replica, Model]]] = []
            for replica, entry in listed:
                if isinstance(entry, Model):
                    for kind in kinds:
                        if kind[0][1].interchangeable(entry):
                            kind.append((replica, entry))
                            break
                    else:
                        kinds.append([(replica, entry)])
            if not kinds:
                entries[name] = next(entry for _, entry in listed if entry is not None)
                continue
            # While a new release rolls out, requests are for what most Tritons have; of as many,
            # for what they were for.
            before = self._entries.get(name)
            kind = max(kinds, key=lambda kind: (len(kind), _same(before, kind[0][1])))
            model = kind[0][1]
            if isinstance(before, Model) and before.equals(model):
                model = before  # the same object, so that its queue goes on
            sound = [pair for pair in kind if name not in pair[0].doubted] or kind
            entries[name] = model
            teams[model] = Team(
                [replica for replica, _ in sound], sum(each.instances for _, each in sound)
            )
        lacks_default = bool(entries) and self.default not in entries
        if lacks_default and not self._lacks_default:
            logger.warning(
                "there is no default model %r, so this gateway is not ready; there are: %s; "
                "--default-model chooses one",
                self.default,
                ", ".join(sorted(entries)),
            )
        self._lacks_default = lacks_default
        self._entries, self._teams = entries, teams
        if present:
            self._away = None
        elif self._replicas:
            self._away = next(iter(self._replicas.values())).models.away
        self._leave_the_lost()
        metrics.replicas.set(sum(not each.doubted for each in present))

    def _leave_the_lost(self) -> None:
        """Whoever waits for a replica that will not answer goes to one that does."""
        for model, team in self._teams.items():
            for replica in self._replicas.values():
                lost = replica.models.away is not None or model.name in replica.failed
                if lost and replica not in team.replicas:
                    replica.leave(model.name)


def _same(entry: Entry | None, model: Model) -> TypeGuard[Model]:
    return isinstance(entry, Model) and entry.interchangeable(model)
