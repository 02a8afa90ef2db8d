"""Which Tritons answer for which model, from what each of them lists: pure functions.

In: what every replica that is present lists, and what was served before. Out: one entry for each
model's name, and the pool of replicas that answer for it. While a new release rolls out there are
several kinds of a model: requests are made for the kind that most replicas have; if two kinds have
as many, for the kind of the requests before.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeGuard, TypeVar

from server.engines.model import Entry, Model

R = TypeVar("R")
Group = list[tuple[R, Model]]


@dataclass(frozen=True)
class Listing(Generic[R]):
    """What one replica lists, and the models for which its circuit breaker is not closed."""

    replica: R
    entries: Mapping[str, Entry]
    broken: Collection[str] = ()


@dataclass(frozen=True)
class Pool(Generic[R]):
    """The replicas that answer for one model now, and how many batches they work on at once."""

    replicas: list[R]
    instances: int

    @property
    def slots(self) -> int:
        """The most calls to have under way: `instances`, and one more for each replica."""
        return self.instances + len(self.replicas)


def assign(
    listings: Sequence[Listing[R]], before: Mapping[str, Entry]
) -> tuple[dict[str, Entry], dict[Model, Pool[R]]]:
    """The entry of each name that any replica lists, and the pool of each model."""
    entries: dict[str, Entry] = {}
    pools: dict[Model, Pool[R]] = {}
    for name in dict.fromkeys(name for listing in listings for name in listing.entries):
        listed = [
            (listing.replica, listing.entries[name])
            for listing in listings
            if name in listing.entries
        ]
        groups = group_by_kind(listed)
        if not groups:
            entries[name] = listed[0][1]
            continue
        group = preferred(groups, before.get(name))
        model = kept(before.get(name), group[0][1])
        entries[name] = model
        pools[model] = pool_of(group, [each.replica for each in listings if name in each.broken])
    return entries, pools


def group_by_kind(listed: Iterable[tuple[R, Entry]]) -> list[Group[R]]:
    """The usable entries of one name, in groups of models that may answer for each other."""
    groups: list[Group[R]] = []
    for replica, entry in listed:
        if not isinstance(entry, Model):
            continue
        for group in groups:
            if group[0][1].interchangeable(entry):
                group.append((replica, entry))
                break
        else:
            groups.append([(replica, entry)])
    return groups


def preferred(groups: Sequence[Group[R]], before: Entry | None) -> Group[R]:
    """The largest group; of equally large ones the one that can answer requests for `before`."""
    return max(groups, key=lambda group: (len(group), answers_for(before, group[0][1])))


def kept(before: Entry | None, model: Model) -> Model:
    """The previous object of an equal model, so that its queue is kept; else `model`."""
    return before if isinstance(before, Model) and before.equals(model) else model


def pool_of(group: Group[R], broken: Collection[R]) -> Pool[R]:
    """The pool of the replicas that are not broken; of all replicas if all are broken."""
    chosen = [pair for pair in group if pair[0] not in broken] or group
    return Pool([replica for replica, _ in chosen], sum(model.instances for _, model in chosen))


def answers_for(entry: Entry | None, model: Model) -> TypeGuard[Model]:
    """Whether `entry` is a model that may answer requests made for `model`."""
    return isinstance(entry, Model) and entry.interchangeable(model)
