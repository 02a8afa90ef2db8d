"""The simulated fleet against queueing theory, where theory has an answer."""

import math

import ciw
import numpy as np
import pytest

from loadtest.bench.simulation import Clients, Fleet, Simulation

# Nearly all time is spent in the gateways' threads, so that these are the servers of the theory.
NOTHING = 1e-9


class Exponential(Simulation):
    """Service times as Erlang's formula has them."""

    def spend(self, seconds: float) -> float:
        return -seconds * math.log(1 - self.chance())


def erlang_c(servers: int, load: float) -> float:
    """The probability that a request waits; `load` is that of each server (Erlang 1917)."""
    offered = servers * load
    waiting = offered**servers / math.factorial(servers) / (1 - load)
    return waiting / (sum(offered**k / math.factorial(k) for k in range(servers)) + waiting)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_thread_waits_as_pollaczek_and_khinchine_say(load: float) -> None:
    """M/D/1: the mean wait is load × service / (2 (1 - load)); Kleinrock 1975, section 5.6."""
    fleet = Fleet(decode=0.01, batch=NOTHING, image=NOTHING, jitter=0.0)
    seconds = Simulation(fleet).at_rate(load / 0.01, 100_000)
    assert np.mean(seconds) == pytest.approx(0.01 * (1 + load / (2 * (1 - load))), rel=0.05)


@pytest.mark.parametrize(("servers", "load"), [(2, 0.5), (4, 0.8), (16, 0.9)])
def test_several_threads_wait_as_erlang_says(servers: int, load: float) -> None:
    """M/M/c: the mean wait is C × service / (c (1 - load)); Kleinrock 1975, section 3.5."""
    fleet = Fleet(threads=servers, decode=0.01, batch=NOTHING, image=NOTHING)
    seconds = Exponential(fleet).at_rate(servers * load / 0.01, 150_000)
    wait = erlang_c(servers, load) * 0.01 / (servers * (1 - load))
    assert np.mean(seconds) == pytest.approx(0.01 + wait, rel=0.04)


def test_mixed_sizes_wait_as_another_simulation_says() -> None:
    """M/G/3 has no formula; ciw simulates queueing networks (Palmer et al. 2019)."""
    mix, rate, count = ((0.8, 0.5), (0.2, 3.0)), 210.0, 60_000
    fleet = Fleet(threads=3, decode=0.01, batch=NOTHING, image=NOTHING, jitter=0.0, mix=mix)
    ours = Simulation(fleet).at_rate(rate, count)
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(rate)],
        service_distributions=[
            ciw.dists.Pmf([0.01 * times for _, times in mix], [share for share, _ in mix])
        ],
        number_of_servers=[3],
    )
    ciw.seed(0)
    other = ciw.Simulation(network)
    other.simulate_until_max_customers(count)
    theirs = [
        record.exit_date - record.arrival_date
        for record in other.get_all_records()
        if record.id_number > count // 10
    ]
    assert np.mean(ours) == pytest.approx(np.mean(theirs), rel=0.08)
    for percent in (50, 90, 99):
        one, two = (np.percentile(seconds, percent) for seconds in (ours, theirs))
        assert one == pytest.approx(two, rel=0.1), percent


def test_connections_that_stay_load_gateways_unevenly() -> None:
    """Each connection is a queue of its own rate: the mean is that over M/D/1 queues by it."""
    fleet = Fleet(gateways=4, decode=0.01, batch=NOTHING, image=NOTHING, jitter=0.0)
    run = Simulation(fleet, 3, Clients(connections=12))
    on_each = np.array([run.connections_of(gateway) for gateway in range(4)])
    assert on_each.sum() == 12
    assert on_each.max() > on_each.min()
    load = on_each / 12 * 150 * 0.01
    assert load.max() < 0.8  # else there is no mean
    seconds = run.at_rate(150, 100_000)
    expected = (on_each / 12 * 0.01 * (1 + load / (2 * (1 - load)))).sum()
    assert np.mean(seconds) == pytest.approx(expected, rel=0.05)


def test_connections_that_are_closed_soon_are_nearly_as_good_as_single_requests() -> None:
    fleet = Fleet(gateways=14, threads=2, tritons=4, decode=0.0033, batch=0.002, image=0.00044)

    def p99(clients: Clients) -> float:
        return float(np.percentile(Simulation(fleet, 1, clients).at_rate(5000, 30_000), 99))

    balanced, stuck, closed = p99(Clients()), p99(Clients(50)), p99(Clients(50, 1))
    assert stuck > 5 * balanced
    assert closed < 2 * balanced


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
