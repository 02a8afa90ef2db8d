"""server/engines/triton/balancer.py: who is asked, and who is asked again, with faked Tritons.

test_fleet.py does the same with real ones, which are killed, frozen and restarted.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import numpy as np
import pytest

from server import problems
from server.engines.triton import catalogue, replica, retries
from server.engines.triton.balancer import Balancer
from server.observability import metrics
from tests.server.engines.fakes import SIZE, FakeClient

IMAGE = np.zeros((SIZE, SIZE, 3), np.uint8)
Test = Callable[[Balancer, list[FakeClient]], Awaitable[None]]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds with a real Triton takes milliseconds.

    But an answer that is there must not come too late when this process stands still for a moment.
    """
    for module, name, seconds in (
        (replica, "PROBE_TIMEOUT", 0.5),
        (replica, "PROBE_PAUSE", 0.01),
        (catalogue, "POLL_SECONDS", 0.02),
        (catalogue, "AWAY_POLL_SECONDS", 0.02),
        (catalogue, "QUESTION_TIMEOUT", 0.5),
        (catalogue, "RECENT_SECONDS", 0.0),
    ):
        monkeypatch.setattr(module, name, seconds)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - many things change it
            await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def balanced(*clients: FakeClient) -> AsyncIterator[Balancer]:
    by_url = {client.url: client for client in clients}
    balancer = Balancer(",".join(by_url), "m", 30.0, by_url.__getitem__)
    watch = asyncio.create_task(balancer.watch())
    try:
        await until(lambda: len(balancer.serving("m")) == len(clients))
        yield balancer
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        await balancer.close(1.0)


def run(test: Test, count: int = 3) -> None:
    """Run the test against a balancer with so many Tritons."""

    async def with_balancer() -> None:
        clients = [FakeClient(f"127.0.0.{number}:1") for number in range(1, count + 1)]
        async with balanced(*clients) as balancer:
            await test(balancer, clients)

    asyncio.run(asyncio.wait_for(with_balancer(), 60))


async def infer(balancer: Balancer, images: int = 1, seconds: float = 30.0) -> None:
    await balancer.infer(balancer.get("m"), [IMAGE] * images, seconds)


def repeated() -> dict[str, float]:
    """How often each kind of repetition was counted."""
    found = {}
    for kind in retries.Kind:
        found[kind.value] = metrics.retries.labels(kind.value)._value.get()
    found["total"] = metrics.repeated._value.get()
    return found


def new(before: dict[str, float]) -> dict[str, float]:
    """What has been counted since then."""
    return {
        kind: count - before[kind] for kind, count in repeated().items() if count > before[kind]
    }


def test_calls_and_images_are_shared_evenly() -> None:
    async def test(balancer: Balancer, clients: list[FakeClient]) -> None:
        before = [client.calls for client in clients]
        for _ in range(30):
            await infer(balancer)
        shares = [client.calls - count for client, count in zip(clients, before, strict=True)]
        assert shares == [10, 10, 10]
        # Who got many images at once is given none until the others have as many.
        before = [client.calls for client in clients]
        await infer(balancer, images=6)
        for _ in range(12):
            await infer(balancer)
        shares = [client.calls - count for client, count in zip(clients, before, strict=True)]
        assert sorted(shares) == [1, 6, 6]

    run(test)


def test_the_one_with_the_fewest_calls_under_way_is_asked() -> None:
    async def test(balancer: Balancer, clients: list[FakeClient]) -> None:
        model = balancer.get("m")
        for client in clients:
            client.freeze()
        calls = [asyncio.create_task(balancer.infer(model, [IMAGE], 30.0)) for _ in range(6)]
        await asyncio.sleep(0)
        assert [each.pending for each in balancer.serving("m")] == [2, 2, 2]
        for client in clients:
            client.thaw()
        await asyncio.gather(*calls)
        assert [each.pending for each in balancer.serving("m")] == [0, 0, 0]

    run(test)


@pytest.mark.parametrize(
    ("failure", "kind"),
    [(problems.TritonAway("gone"), "away"), (problems.ModelNotReady("gone"), "not-ready")],
)
def test_a_lost_call_is_repeated_on_another(failure: problems.Problem, kind: str) -> None:
    async def test(balancer: Balancer, clients: list[FakeClient]) -> None:
        before = repeated()
        # With a call: else the watch could see it first, and no call would be lost.
        clients[1].fails_at_call = failure
        for _ in range(6):
            await infer(balancer)
        assert new(before)[kind] >= 1
        assert new(before)["total"] == new(before)[kind]
        # It comes back by itself.
        clients[1].failure = None
        await until(lambda: len(balancer.serving("m")) == 3)
        await until(lambda: not any(each.broken for each in balancer.serving("m")))
        calls = clients[1].calls
        for _ in range(6):
            await infer(balancer)
        assert clients[1].calls > calls

    run(test)


def test_a_call_is_repeated_on_one_other_triton_only() -> None:
    async def test(balancer: Balancer, clients: list[FakeClient]) -> None:
        before = repeated()
        for client in clients:
            client.fails_at_call = problems.ModelNotReady("draining")
        calls = sum(client.calls for client in clients)
        with pytest.raises(problems.ModelNotReady):
            await infer(balancer)
        assert sum(client.calls for client in clients) == calls + 2
        assert new(before) == {"not-ready": 1, "total": 1}

    run(test)


@pytest.mark.parametrize(
    "failure", [problems.ContractBroken("odd"), problems.DeadlinePassed("late")]
)
def test_a_call_that_was_not_lost_is_not_repeated(failure: problems.Problem) -> None:
    async def test(balancer: Balancer, clients: list[FakeClient]) -> None:
        before = repeated()
        model = balancer.get("m")
        for client in clients:
            client.failure = failure
        with pytest.raises(type(failure)):
            await balancer.infer(model, [IMAGE], 30.0)
        assert new(before) == {}

    run(test)


def test_calls_that_wait_for_a_frozen_one_fail_over() -> None:
    async def test(balancer: Balancer, clients: list[FakeClient]) -> None:
        before = repeated()
        clients[0].freeze()
        # More than one round, so that some wait for the frozen one.
        await asyncio.gather(*(infer(balancer, seconds=20.0) for _ in range(9)))
        assert new(before) == {"failed-over": 3, "total": 3}
        clients[0].thaw()
        await until(lambda: len(balancer.serving("m")) == 3)

    run(test)


def test_the_only_replica_is_reported_lost_and_found_again() -> None:
    async def test(balancer: Balancer, clients: list[FakeClient]) -> None:
        before = repeated()
        clients[0].failure = problems.TritonAway("gone")
        with pytest.raises(problems.TritonAway):
            await infer(balancer)
        assert new(before) == {}
        await until(lambda: not balancer.serving("m"))
        with pytest.raises(problems.TritonAway, match="gone"):
            balancer.get("m")
        with pytest.raises(problems.TritonAway):
            balancer.entries()
        clients[0].failure = None
        await until(lambda: len(balancer.serving("m")) == 1)
        await infer(balancer)

    run(test, count=1)


def test_one_that_was_away_does_not_catch_up() -> None:
    async def test(balancer: Balancer, clients: list[FakeClient]) -> None:
        clients[0].failure = problems.TritonAway("gone")
        await until(lambda: len(balancer.serving("m")) == 2)
        for _ in range(100):
            await infer(balancer)
        clients[0].failure = None
        await until(lambda: len(balancer.serving("m")) == 3)
        before = clients[0].calls
        for _ in range(30):
            await infer(balancer)
        assert 9 <= clients[0].calls - before <= 11

    run(test)


def test_a_probe_passes_with_one_healthy_triton() -> None:
    async def test(balancer: Balancer, clients: list[FakeClient]) -> None:
        wrong = np.asarray([0.7, 0.1, 0.1, 0.1], np.float32)
        clients[0].answer = clients[1].answer = wrong
        assert await balancer.probe() == []
        clients[2].answer = wrong
        found = await balancer.probe()
        assert [type(problem) for problem in found] == [problems.ContractBroken]
        assert "0.45 away from what it answered" in found[0].detail
        # Wrong answers are avoided as long as another Triton gives right ones.
        clients[1].answer = FakeClient("").answer
        await until(lambda: [bool(each.broken) for each in balancer.serving("m")].count(False) == 1)
        before = clients[1].calls
        for _ in range(10):
            await infer(balancer)
        assert clients[1].calls - before >= 10

    run(test)


def test_instances_and_slots_are_those_of_all_that_answer() -> None:
    async def test(balancer: Balancer, clients: list[FakeClient]) -> None:
        model = balancer.get("m")
        assert (balancer.instances(model), balancer.slots(model)) == (3, 6)
        clients[0].failure = problems.TritonAway("gone")
        await until(lambda: balancer.slots(model) == 4)
        with pytest.raises(problems.UnknownModel, match="there are: m"):
            balancer.get("n")

    run(test)
