"""The bottleneck of a point: load generator, decoding, gateway, Triton, model, other programs.

In: a point of a comparison. Out: the share of each part's capacity that was used, and the name of
the part that was used up. A part counts as used up from 80 % on; all cores together from 90 %.
"""

import dataclasses
import statistics
from typing import Any

from loadtest.compare.points import counted_windows
from loadtest.machine.disturbance import FOREIGN_LIMIT

FULL, ALL_CORES = 0.8, 0.9
LATE_MS = 10.0  # if the generator sends later than this in the open loop, it causes the latencies
GENERATOR = "load generator"
OTHERS = "other programs"


@dataclasses.dataclass(frozen=True)
class Use:
    """Shares of capacity used, 0 to 1; None where it was not measured."""

    generator: float  # of one core: the load generator has one thread
    decode: float | None  # of the decoding threads, one per core
    event_loop: float | None  # of the gateway's event loops, one core for each worker
    triton: float | None  # of all cores
    model: float | None  # the share of the time in which an instance computes
    cores: float | None  # of all cores, by all processes
    others: float | None  # of all cores, by programs that are not ours
    late_ms: float  # how late the generator sent, 99th percentile

    @property
    def limit(self) -> str:
        """The name of the part that was used up; "none" if no part was."""
        if self.others is not None and self.others > FOREIGN_LIMIT:
            return OTHERS
        if self.generator >= FULL or self.late_ms > LATE_MS:
            return GENERATOR
        parts = {
            "model": self.model,
            "decode": self.decode,
            "gateway": self.event_loop,
            "Triton": self.triton,
        }
        used = {name: share for name, share in parts.items() if share is not None}
        fullest = max(used, key=lambda name: used[name], default="")
        if fullest and used[fullest] >= FULL:
            return fullest
        if self.cores is not None and self.cores >= ALL_CORES:
            return f"all cores, {fullest} most"
        return "none"


def use(point: dict[str, Any], cores: int, workers: int) -> Use:
    """The medians of use over the windows of a point that count, or over all if none counts."""
    windows = counted_windows(point) or point["windows"]

    def per_second(role: str) -> float | None:
        found = [w["cpu_seconds"][role] / w["seconds"] for w in windows if role in w["cpu_seconds"]]
        return statistics.median(found) if found else None

    gateway, triton, model = (per_second(role) for role in ("gateway", "triton", "model"))
    event_loop = per_second("event_loop")
    generator = per_second("generator") or 0.0
    # By the clock, not by CPU time: on a saturated machine threads also wait for a core.
    decoding = [w["phases"]["decode"] * w["rate"] / 1e3 for w in windows if w["phases"]]
    busy = [w["busy"] for w in windows if w["busy"] is not None]
    foreign = [w["machine"]["foreign_cores"] for w in windows if w["machine"]]
    known = [each for each in foreign if each is not None]
    whole = None
    if gateway is not None and triton is not None and model is not None:
        whole = (gateway + triton + model + generator) / cores
    return Use(
        generator=generator,
        decode=statistics.median(decoding) / cores if decoding else None,
        event_loop=None if event_loop is None else event_loop / workers,
        triton=None if triton is None else triton / cores,
        model=statistics.median(busy) if busy else None,
        cores=whole,
        others=statistics.median(known) / cores if known else None,
        late_ms=max(w["late_ms"] for w in windows),
    )


def cpu_ms(point: dict[str, Any], role: str) -> float | None:
    """CPU milliseconds of a role per image, over all windows that count."""
    windows = [w for w in counted_windows(point) if role in w["cpu_seconds"]]
    images = sum(w["images"] for w in windows)
    return 1e3 * sum(w["cpu_seconds"][role] for w in windows) / images if images else None
