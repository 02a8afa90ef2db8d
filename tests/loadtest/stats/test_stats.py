"""Statistics against published tables, worked examples, scipy's own tests and simulated truth."""

import math

import numpy as np
import pytest
import scipy.stats

from loadtest.stats import percentiles as levels
from loadtest.stats.percentiles import bound, keeps, least_samples, percentile, slower_allowed
from loadtest.stats.ratios import Ratio, paired, t_quantile
from loadtest.stats.shares import mcnemar, wilson
from loadtest.stats.steadiness import agree, drift


@pytest.mark.parametrize(
    ("level", "least"),
    # For 0, 1, 2, 4 and 9 slower requests, as MLPerf's early_stopping.cc computes them.
    [
        (50, (7, 11, 14, 19, 33)),
        (90, (44, 64, 81, 113, 183)),
        (95, (90, 130, 165, 229, 371)),
        (99, (459, 662, 838, 1157, 1874)),
        (99.9, (4603, 6636, 8403, 11601, 18779)),
    ],
)
def test_the_least_samples_are_those_of_mlperf(level: float, least: tuple[int, ...]) -> None:
    for slower, count in zip((0, 1, 2, 4, 9), least, strict=True):
        assert slower_allowed(count, level) >= slower
        assert slower_allowed(count - 1, level) < slower
        if slower:
            assert least_samples(level, slower) == count


@pytest.mark.parametrize(
    ("count", "ranks"), [(662, (650, 661)), (2000, (1971, 1989)), (6636, (6553, 6586))]
)
def test_the_interval_of_a_percentile_is_by_ranks(count: int, ranks: tuple[int, int]) -> None:
    found = percentile([float(rank) for rank in range(count, 0, -1)], 99)
    assert found is not None
    assert (found.low, found.high) == ranks
    assert found.value == math.ceil(0.99 * count)


def test_too_few_samples_have_no_percentile() -> None:
    assert percentile([1.0] * 661, 99) is None
    assert percentile([1.0] * 662, 99) is not None
    assert set(levels.percentiles([1.0] * 130)) == {50, 90, 95}
    assert bound([1.0] * 661, 99) is None


def test_a_percentile_covers_the_truth_as_often_as_it_says() -> None:
    """1,000 samples of a law whose p90 is known, 400 times: 95 % of the intervals hold it."""
    random = np.random.default_rng(7)
    truth = scipy.stats.lognorm(s=0.5).ppf(0.9)
    found = [percentile(list(random.lognormal(0, 0.5, 1000)), 90) for _ in range(400)]
    held = np.mean([each is not None and each.low <= truth <= each.high for each in found])
    assert 0.92 <= held <= 0.99


def test_requests_that_failed_are_the_slowest() -> None:
    samples = [10.0] * 980 + [math.inf] * 20
    found = levels.percentiles(samples)
    assert found[95].value == 10
    assert found[99].text() == "failed"
    assert not keeps(samples, 50)
    assert keeps([10.0] * 1000, 50)


def test_a_limit_is_kept_with_confidence() -> None:
    """p99 within 100 ms: of 1157 requests four may be slower, of 662 one."""
    assert keeps([50.0] * 1153 + [200.0] * 4, 100)
    assert not keeps([50.0] * 1152 + [200.0] * 5, 100)
    assert not keeps([50.0] * 400, 100)
    assert bound([50.0] * 1153 + [200.0, 300.0, 400.0, 500.0], 99) == 200.0


def test_a_worked_ratio() -> None:
    """The figures of a worked example, and scipy's interval of a mean."""
    first = (101.0, 96.5, 103.2, 99.1, 97.8, 102.4)
    second = (88.9, 84.1, 92.3, 86.0, 87.2, 89.5)
    found = paired(list(zip(first, second, strict=True)))
    assert found is not None
    assert found.text() == "0.88 (0.87 to 0.89)"
    logs = np.log(np.array(second) / np.array(first))
    low, high = scipy.stats.t.interval(0.95, 5, logs.mean(), scipy.stats.sem(logs))
    assert (found.low, found.high) == pytest.approx((np.exp(low), np.exp(high)))
    assert found.differs
    assert found.within == pytest.approx(0.0131, abs=1e-4)
    assert found.inverse().text() == "1.14 (1.12 to 1.15)"


def test_a_ratio_covers_the_truth_as_often_as_it_says() -> None:
    """Six pairs with a machine that is slow for a while: 95 % of 2,000 intervals hold 0.8."""
    random = np.random.default_rng(3)
    held = 0
    for _ in range(2000):
        machine = random.lognormal(0, 0.3, 6)
        noise = random.lognormal(0, 0.03, (2, 6))
        found = paired(list(zip(machine * noise[0], 0.8 * machine * noise[1], strict=True)))
        assert found is not None
        held += found.low <= 0.8 <= found.high
        assert found.within < 0.25  # what slowed both is not in it
    assert held / 2000 == pytest.approx(0.95, abs=0.015)


def test_too_few_pairs_have_no_interval() -> None:
    found = paired([(2.0, 1.0)] * 3)
    assert found is not None
    assert found.text() == "0.50 (interval unknown, 3 pairs)"
    assert not found.differs
    assert math.isinf(found.within)
    assert paired([]) is None
    assert paired([(0.0, 1.0)] * 5) is None
    assert Ratio(1, 0.9, 1.1, 5).overlaps(Ratio(1.2, 1.05, 1.3, 5))
    assert not Ratio(1, 0.9, 1.1, 5).overlaps(Ratio(1.2, 1.15, 1.3, 5))
    assert [round(t_quantile(n - 1), 3) for n in (4, 6, 12)] == [3.182, 2.571, 2.201]


@pytest.mark.parametrize(
    ("hits", "count", "shown"),
    [
        (4202, 5000, "84.04% (83.00 to 85.03)"),
        (887, 1000, "88.70% (86.59 to 90.52)"),
        (0, 0, "0.00% (0.00 to 100.00)"),
    ],
)
def test_wilsons_interval(hits: int, count: int, shown: str) -> None:
    found = wilson(hits, count)
    assert found.text() == shown
    if count:
        scipys = scipy.stats.binomtest(hits, count).proportion_ci(method="wilson")
        assert (found.low, found.high) == pytest.approx((scipys.low, scipys.high))


def test_two_models_on_the_same_images() -> None:
    assert mcnemar(10, 10) == 1.0
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(30, 10) == pytest.approx(scipy.stats.binomtest(10, 40).pvalue)


def test_windows_agree_within_a_tenth() -> None:
    assert agree([50, 100, 105, 109])
    assert not agree([100, 105, 111])
    assert not agree([100, 100])
    assert not agree([100, 0, 100])


def test_a_drift_is_distinguished_from_noise() -> None:
    slower = drift([100 * 0.97**n for n in range(8)])
    assert slower is not None
    assert slower.excludes(1)
    assert slower.value == pytest.approx(0.97**7)
    random = np.random.default_rng(1)
    false = [drift(list(random.lognormal(0, 0.02, 8))) for _ in range(400)]
    assert np.mean([each is not None and each.excludes(1) for each in false]) < 0.08
    assert drift([1, 2, 3]) is None
