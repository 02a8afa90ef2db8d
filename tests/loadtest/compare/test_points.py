"""Ratios by rounds, and windows that count for nothing."""

import dataclasses

import pytest

from loadtest.compare.measure import Load, Visit, percentiles
from loadtest.compare.points import (
    Point,
    counted_windows,
    lacking,
    latencies_of,
    rate_ratio,
    recorded_cpu_ratio,
    recorded_ratio,
)
from loadtest.machine.disturbance import Disturbance
from tests.loadtest.compare import made


def visit(number: int, rate: float, disturbed: str = "") -> Visit:
    """A window with ten requests, one of which failed."""
    return Visit(
        round=number, seconds=1.0, images=10, rate=rate, latencies_ms=[10.0] * 9 + [None],
        phases={}, cpu_seconds={}, average_batch=None, queue_ms=None, compute_ms=None, busy=None,
        late_ms=0.0, failed=1, machine=Disturbance(0, 0, 0, 0), gpus=[], disturbed=disturbed,
    )  # fmt: skip


def test_a_disturbed_window_is_kept_and_counts_for_nothing() -> None:
    load = Load("gateway", 8)
    first, second = (Point(model, load) for model in ("mixer", "vit"))
    for number in range(1, 6):
        first.visits.append(visit(number, 100))
        second.visits += [visit(number, 1, "other programs took 1.00 cores"), visit(number, 50)]
    ratio = rate_ratio(first, second)
    assert ratio is not None
    assert ratio.value == pytest.approx(0.5)
    assert ratio.pairs == 5
    document = second.document()
    assert len(document["windows"]) == 10
    assert document["rate_measured"] == 50
    assert document["requests"] == 50
    assert latencies_of(document).count(float("inf")) == 5
    assert len(counted_windows(document)) == 5


def test_a_window_without_its_pair_is_in_no_ratio() -> None:
    load = Load("gateway", 8)
    first, second = (Point(model, load) for model in ("mixer", "vit"))
    first.visits = [visit(number, 100) for number in (1, 2, 3, 4)]
    second.visits = [visit(number, 50) for number in (2, 3, 4, 5)]
    ratio = rate_ratio(first, second)
    assert ratio is not None
    assert ratio.pairs == 3
    assert rate_ratio(first, Point("bit", load)) is None


def test_agreement_is_of_rate_and_latency() -> None:
    steady = Point("mixer", Load("gateway", 8), visits=[visit(n, 100) for n in range(3)])
    assert not steady.agrees  # a mean with failed requests is no latency
    right = dataclasses.replace(visit(0, 100), latencies_ms=[10.0] * 10)
    slower = dataclasses.replace(right, latencies_ms=[12.0] * 10)
    assert Point("mixer", Load("gateway", 8), visits=[right] * 3).agrees
    assert not Point("mixer", Load("gateway", 8), visits=[right, right, slower]).agrees


def test_recorded_points_give_the_same_ratios() -> None:
    mixer, vit = made.point("mixer", made.MIXER), made.point("vit", made.VIT)
    ratio = recorded_ratio(vit, mixer)
    assert ratio is not None
    assert ratio.text() == "1.22 (1.22 to 1.23)"
    cpu = recorded_cpu_ratio(vit, mixer)
    assert cpu is not None
    assert cpu.value == pytest.approx(ratio.value, rel=0.01)  # the same seconds, more images


def test_percentiles_as_a_result_has_them() -> None:
    assert percentiles([1.0] * 63) == {"50": 1.0}
    assert percentiles([1.0] * 600 + [float("inf")] * 100) == {
        "50": 1.0, "90": "failed", "95": "failed", "99": "failed",
    }  # fmt: skip


def test_the_main_load_gets_the_windows_until_its_ratio_is_known() -> None:
    def all_right(number: int, rate: float) -> Visit:
        return dataclasses.replace(visit(number, rate), latencies_ms=[10.0] * 10)

    one, eight = Load("gateway", 1), Load("gateway", 8)
    rates = {
        ("first", one): [50, 70, 50, 70],  # its windows do not agree
        ("second", one): [50, 50, 50, 50],
        ("first", eight): [100, 110, 100, 110],
        ("second", eight): [100, 100, 110, 110],
    }
    points = [
        Point(model, load, visits=[all_right(n, rate) for n, rate in enumerate(each)])
        for (model, load), each in rates.items()
    ]
    assert lacking(points, points[2:]) == points[2:]
    for point in points[2:]:
        point.visits += [all_right(n, 100) for n in range(4, 40)]
    assert lacking(points, points[2:]) == points[:2]
    points[0].visits += [all_right(n, 60) for n in range(4, 7)]
    assert lacking(points, points[2:]) == []
