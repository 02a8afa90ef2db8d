"""server/serving/fairness.py: shares of cost, whatever is asked for."""

import pytest

from server.serving.fairness import MANY, FairQueue


def drain(queue: FairQueue[str], count: int) -> list[str]:
    return [queue.pop() for _ in range(count)]


def test_a_lone_client_is_served_in_order() -> None:
    queue: FairQueue[int] = FairQueue()
    for number in range(5):
        queue.push("a", 10 - number, number)
    assert len(queue) == 5
    assert queue.clients == 1
    assert queue.peek() == 0
    assert [queue.pop() for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(IndexError):
        queue.pop()


def test_clients_share_the_cost_and_not_the_number() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(100):
        queue.push("large", 10.0, "large")
        queue.push("small", 1.0, "small")
    order = drain(queue, 55)
    # 5 large images cost as much as 50 small ones.
    assert order.count("large") == pytest.approx(5, abs=1)


def test_one_that_comes_late_does_not_wait_behind_what_another_has_asked_for() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(1000):
        queue.push("greedy", 1.0, f"greedy {number}")
    drain(queue, 10)
    queue.push("modest", 1.0, "modest")
    assert "modest" in drain(queue, 2)
    # And a client gets no credit for the time in which it sent no request.
    for number in range(10):
        queue.push("modest", 1.0, f"modest {number}")
    order = drain(queue, 10)
    assert 4 <= sum(work.startswith("modest") for work in order) <= 6


def test_what_costs_more_than_its_price_is_charged() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(20):
        queue.push("liar", 1.0, "liar")
        queue.push("honest", 1.0, "honest")
        queue.pop()
        queue.charge("liar", 9.0)
    queue.push("liar", 1.0, "last")
    queue.push("honest", 1.0, "first")
    order = drain(queue, len(queue))
    assert order.index("first") < order.index("last")


def test_clients_that_have_gone_are_forgotten() -> None:
    queue: FairQueue[int] = FairQueue()
    for number in range(20 * MANY):
        queue.push(str(number), 1.0, number)
        queue.pop()
    assert len(queue._finish) <= 2 * MANY
    queue.rest()
    assert not queue._finish
