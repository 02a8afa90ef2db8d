"""Shares such as accuracies, with 95 % intervals, and whether two models differ on the same images.

In: counts. Out: Wilson's interval, which stays within 0 and 1 and is right for small counts too;
McNemar's exact test for two models.
"""

import dataclasses
import math

from scipy import special

Z = 1.959963984540054  # of a two-sided 95 % interval


@dataclasses.dataclass(frozen=True)
class Share:
    """A share and its interval, 0 to 1."""

    value: float
    low: float
    high: float

    def text(self) -> str:
        """As `84.04 % (83.00 to 85.03)`."""
        return f"{self.value:.2%} ({100 * self.low:.2f} to {100 * self.high:.2f})"


def wilson(hits: int, count: int) -> Share:
    """The share of hits, by Wilson (1927); with a `count` of 0 the interval is 0 to 1."""
    if count == 0:
        return Share(0.0, 0.0, 1.0)
    share = hits / count
    middle = share + Z**2 / (2 * count)
    half = Z * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    scale = 1 + Z**2 / count
    return Share(share, max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale))


def mcnemar(only_first: int, only_second: int) -> float:
    """The probability of a split at least as uneven as this one if both models are equally good.

    The split is of the images that one model classified rightly and the other wrongly; images on
    which both were right or both wrong do not show which model is better. Exact and two-sided.
    """
    count = only_first + only_second
    if count == 0:
        return 1.0
    return min(1.0, 2 * float(special.bdtr(min(only_first, only_second), count, 0.5)))
