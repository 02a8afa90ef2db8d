"""Ratios of values that were measured in pairs, with 95 % intervals.

In: pairs of values; the two values of a pair were measured one after the other. Out: the ratio and
its interval, by Student's t of the logarithms. A slow phase of the machine slows both values of a
pair. So a value is compared only with the other value of its own pair.
"""

import dataclasses
import math
import statistics
from collections.abc import Sequence

from scipy import special

from contracts.counting import counted

INTERVAL = 0.95
LEAST_PAIRS = 4  # with two pairs, Student's t is 12.7, and the interval is too wide to be of use


@dataclasses.dataclass(frozen=True)
class Ratio:
    """A ratio; without an interval (infinite) where there are too few pairs."""

    value: float
    low: float
    high: float
    pairs: int

    @property
    def known(self) -> bool:
        """Whether there are enough pairs for an interval."""
        return self.pairs >= LEAST_PAIRS

    @property
    def within(self) -> float:
        """Half of the interval as a share of the ratio: 0.05 is ± 5 %."""
        return math.sqrt(self.high / self.low) - 1 if self.known and self.low > 0 else math.inf

    @property
    def differs(self) -> bool:
        """Whether the interval excludes 1, so that the two values differ."""
        return self.known and not self.low <= 1 <= self.high

    def text(self) -> str:
        """As `0.88 (0.87 to 0.89)`."""
        if not self.known:
            return f"{self.value:.2f} (interval unknown, {counted(self.pairs, 'pair')})"
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"

    def inverse(self) -> "Ratio":
        """1 ÷ this ratio, with its interval."""
        high = 1 / self.low if self.low > 0 else math.inf
        return Ratio(1 / self.value, 1 / self.high, high, self.pairs)

    def overlaps(self, other: "Ratio") -> bool:
        """Whether the two intervals have values in common."""
        return self.low <= other.high and other.low <= self.high


def paired(pairs: Sequence[tuple[float, float]]) -> Ratio | None:
    """second ÷ first of each pair; None without pairs, or with a value that is not above zero."""
    if not pairs or any(value <= 0 for pair in pairs for value in pair):
        return None
    return of_logarithms([math.log(second / first) for first, second in pairs])


def of_logarithms(logarithms: Sequence[float]) -> Ratio:
    """The ratio whose logarithms these are."""
    count, mean = len(logarithms), statistics.fmean(logarithms)
    if count < LEAST_PAIRS:
        return Ratio(math.exp(mean), 0.0, math.inf, count)
    half = t_quantile(count - 1) * statistics.stdev(logarithms) / math.sqrt(count)
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half), count)


def t_quantile(freedom: int) -> float:
    """The factor of a two-sided 95 % interval by Student's t."""
    return float(special.stdtrit(freedom, 1 - (1 - INTERVAL) / 2))
