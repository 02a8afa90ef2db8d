"""Points of a comparison: one model under one load, with its windows, and the ratios of two.

In: windows. Out: whether they agree, their joint figures, ratios by pairs of windows of the same
round, and which points lack windows. A disturbed window stays in the record, and its figures are
not used.
"""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from loadtest.compare.measure import Load, Visit, milliseconds, percentiles
from loadtest.stats.ratios import Ratio, paired
from loadtest.stats.steadiness import agree

WITHIN = 0.05  # the ratios at the greatest load are known well when they are known so well


@dataclasses.dataclass
class Point:
    """One model under one load."""

    model: str
    load: Load
    share: float = 0.0  # of the model's capacity, in the open loop
    visits: list[Visit] = dataclasses.field(default_factory=list)

    @property
    def counted(self) -> list[Visit]:
        """The windows that count."""
        return [each for each in self.visits if not each.disturbed]

    @property
    def capacity(self) -> float:
        """Images per second: the median over the windows that count; 0 if no window counts."""
        rates = [each.rate for each in self.counted]
        return statistics.median(rates) if rates else 0.0

    @property
    def agrees(self) -> bool:
        """Whether the last windows agree in rate and in latency."""
        latencies = [_mean(each.milliseconds) for each in self.counted]
        # In the open loop the rate depends on the random arrivals, so it need not agree.
        return agree(latencies) and (self.load.rate > 0 or agree([v.rate for v in self.counted]))

    @property
    def samples(self) -> int:
        """Requests in the windows that count."""
        return sum(len(each.latencies_ms) for each in self.counted)

    def document(self) -> dict[str, Any]:
        """The point as plain data."""
        latencies = [value for each in self.counted for value in each.milliseconds]
        return {
            "model": self.model,
            **dataclasses.asdict(self.load),
            "share": self.share,
            "rate_measured": self.capacity or None,
            "agrees": self.agrees,
            "requests": len(latencies),
            "milliseconds": percentiles(latencies),
            "windows": [dataclasses.asdict(each) for each in self.visits],
        }


def _mean(latencies: Sequence[float]) -> float:
    return statistics.fmean(latencies) if latencies else 0.0


def rate_ratio(first: Point, second: Point) -> Ratio | None:
    """Rate of the second ÷ that of the first, round by round."""
    rates = [{each.round: each.rate for each in point.counted} for point in (first, second)]
    return paired([(rates[0][n], rates[1][n]) for n in rates[0] if n in rates[1]])


def lacking(points: Sequence[Point], main: Sequence[Point]) -> list[Point]:
    """The points of the closed loop of which more windows are needed.

    First the ratios to the first of the `main` points must be known well, then the windows of each
    point must agree. All models are measured under the load of a point that lacks windows, since
    the two windows of a ratio come from one round.
    """
    first, *others = main
    ratios = [rate_ratio(first, point) for point in others]
    if not all(ratio is not None and ratio.within <= WITHIN for ratio in ratios):
        return list(main)
    loads = {point.load for point in points if not point.agrees}
    return [point for point in points if point.load in loads]


def counted_windows(point: dict[str, Any]) -> list[dict[str, Any]]:
    """The windows of a recorded point that count."""
    return [each for each in point["windows"] if not each["disturbed"]]


def latencies_of(point: dict[str, Any]) -> list[float]:
    """All latencies of a recorded point, infinite where a request failed."""
    windows = counted_windows(point)
    return [value for each in windows for value in milliseconds(each["latencies_ms"])]


def recorded_ratio(
    first: dict[str, Any], second: dict[str, Any], key: str = "rate"
) -> Ratio | None:
    """A value of the windows of the second recorded point ÷ that of the first, round by round."""
    values = [
        {each["round"]: each[key] for each in counted_windows(point)} for point in (first, second)
    ]
    return paired([(values[0][n], values[1][n]) for n in values[0] if n in values[1]])


def recorded_cpu_ratio(
    first: dict[str, Any], second: dict[str, Any], role: str = "model"
) -> Ratio | None:
    """The first point's CPU time per image ÷ the second's, for one role, round by round."""

    def per_image(point: dict[str, Any]) -> dict[int, float]:
        return {
            each["round"]: each["cpu_seconds"][role] / each["images"]
            for each in counted_windows(point)
            if role in each["cpu_seconds"] and each["images"]
        }

    theirs, own = per_image(first), per_image(second)
    return paired([(own[n], theirs[n]) for n in own if n in theirs])
