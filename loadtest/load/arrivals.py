"""When requests are due: at random times, as independent people send them, or evenly spaced.

In: a rate and a seed. Out: moments in seconds from the beginning. Random gaps are exponential, so
that arrivals are a Poisson process. Evenly spaced requests never meet each other on a server that
is fast enough, so they hide the queueing that random arrivals cause.
"""

import itertools
from collections.abc import Callable, Iterator

import numpy as np


def poisson(rate: float, seed: int) -> Iterator[float]:
    """`rate` per second on average; the same seed gives the same moments."""
    random = np.random.default_rng(seed)
    return itertools.accumulate(random.exponential(1 / rate) for _ in itertools.count())


def even(rate: float, _seed: int = 0) -> Iterator[float]:
    """`rate` per second, the first at once."""
    return (number / rate for number in itertools.count())


ARRIVALS: dict[str, Callable[[float, int], Iterator[float]]] = {"poisson": poisson, "even": even}
