"""The simulated fleet against queueing theory, where theory has an answer."""

import numpy as np
import pytest

from loadtest.bench.simulation import Fleet, Simulation


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_thread_waits_as_pollaczek_and_khinchine_say(load: float) -> None:
    """M/D/1: the mean wait is load × service / (2 (1 - load)); Kleinrock 1975, section 5.6."""
    fleet = Fleet(decode=0.01, batch=1e-9, image=1e-9, jitter=0.0)
    seconds = Simulation(fleet).at_rate(load / 0.01, 100_000)
    assert np.mean(seconds) == pytest.approx(0.01 * (1 + load / (2 * (1 - load))), rel=0.05)


def test_a_lone_client_waits_for_nothing() -> None:
    fleet = Fleet(decode=0.004, batch=0.002, image=0.001, jitter=0.0)
    assert Simulation(fleet).peak(1, 100) == pytest.approx(1 / 0.007)


def test_many_clients_reach_the_capacity() -> None:
    slow = Fleet(gateways=2, threads=3, tritons=2, decode=0.03, batch=0.002, image=0.001)
    assert Simulation(slow).peak(200, 10_000) == pytest.approx(min(slow.capacity()), rel=0.05)


def test_images_that_wait_share_a_batch() -> None:
    """Single images would be done at 90 per second."""
    fleet = Fleet(decode=0.0001, batch=0.01, image=0.001, max_batch=32, jitter=0.0)
    assert Simulation(fleet).peak(64, 10_000) == pytest.approx(fleet.capacity()[1], rel=0.05)


def test_the_same_seed_gives_the_same_run() -> None:
    one, same, other = (Simulation(Fleet(tritons=2), seed).at_rate(50, 500) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
