"""When requests are due: the law of the gaps, and the same moments for the same seed."""

import itertools

import numpy as np
import pytest
import scipy.stats

from loadtest.load.arrivals import ARRIVALS, even, poisson


def test_random_gaps_are_exponential() -> None:
    """Held against scipy's Kolmogorov-Smirnov test; a right generator fails once in a thousand."""
    moments = np.fromiter(itertools.islice(poisson(20, 3), 5000), float)
    gaps = np.diff(moments, prepend=0)
    assert scipy.stats.kstest(gaps, "expon", args=(0, 1 / 20)).pvalue > 1e-3
    # Independent of each other: neighbours are not correlated.
    assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < 0.05


def test_even_gaps_are_even() -> None:
    assert list(itertools.islice(even(4), 3)) == [0.0, 0.25, 0.5]


@pytest.mark.parametrize("kind", ARRIVALS)
def test_a_seed_gives_the_same_moments(kind: str) -> None:
    first, again = (list(itertools.islice(ARRIVALS[kind](7, 1), 50)) for _ in range(2))
    assert first == again
    if kind == "poisson":
        assert first != list(itertools.islice(poisson(7, 2), 50))
