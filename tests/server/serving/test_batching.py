"""server/serving/batching.py: which images share a call, against an engine that the test holds."""

import asyncio
import dataclasses
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest

from server.problems import ContractBroken, ModelNotReady
from server.serving.batching import Batcher
from tests.server.engines.fakes import CLASSES, SIZE, FakeEngine, model

IMAGE = np.zeros((SIZE, SIZE, 3), np.uint8)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 10))


async def settle() -> None:
    """Let everything happen that waits for nothing but its turn."""
    for _ in range(10):
        await asyncio.sleep(0)


def batcher_of(engine: FakeEngine) -> Batcher:
    return Batcher(engine, engine.get(engine.default), 30.0)


async def ask(batcher: Batcher) -> None:
    with batcher.admission.enter(1, 30.0) as ticket:
        ticket.begin()
        probabilities, version = await batcher.infer(IMAGE)
        ticket.done()
    assert probabilities.shape == (CLASSES,)
    assert version == "1"


def test_a_lone_image_goes_at_once() -> None:
    async def test() -> None:
        engine = FakeEngine(model())
        await ask(batcher_of(engine))
        assert [call.images for call in engine.calls] == [1]

    run(test())


def test_a_batch_is_computed_once_for_all_that_its_images_want() -> None:
    async def test() -> None:
        wide = dataclasses.replace(
            model(max_batch_size=8), extras={"logits": CLASSES, "embedding": 3}
        )
        engine = FakeEngine(wide, hold=True)
        batcher = batcher_of(engine)
        wishes: list[tuple[str, ...]] = [(), ("embedding",), ("logits", "embedding"), ("logits",)]
        with batcher.admission.enter(4, 30.0):
            asks = [asyncio.create_task(batcher.infer(IMAGE, extras=each)) for each in wishes]
            await settle()
            assert [(call.images, call.extras) for call in engine.calls] == [
                (4, ("embedding", "logits"))
            ]
            engine.calls[0].finish()
            rows = [row for row, _ in await asyncio.gather(*asks)]
        letters = {"embedding": [float(ord("e"))] * 3, "logits": [float(ord("l"))] * CLASSES}
        for wish, row in zip(wishes, rows, strict=True):
            expected = [0.25] * CLASSES + [number for name in wish for number in letters[name]]
            assert row.tolist() == expected

    run(test())


def test_images_that_are_ready_together_share_a_call() -> None:
    async def test() -> None:
        engine = FakeEngine(model(max_batch_size=8), hold=True)
        batcher = batcher_of(engine)
        with batcher.admission.enter(1, 30.0):  # another request is under way: not alone
            asks = [asyncio.create_task(ask(batcher)) for _ in range(8)]
            await settle()
            assert [call.images for call in engine.calls] == [8]
            engine.calls[0].finish()
            await asyncio.gather(*asks)

    run(test())


def test_no_call_is_larger_than_the_model_takes() -> None:
    async def test() -> None:
        engine = FakeEngine(model(max_batch_size=4), hold=True)
        batcher = batcher_of(engine)
        asks = [asyncio.create_task(ask(batcher)) for _ in range(10)]
        done = 0
        while done < 10:
            await settle()
            for call in engine.calls:
                if not call.answer.done():
                    call.finish()
                    done += call.images
        await asyncio.gather(*asks)
        assert max(call.images for call in engine.calls) <= 4
        assert sum(call.images for call in engine.calls) == 10

    run(test())


def test_while_every_instance_is_busy_one_batch_is_prefetched_and_the_rest_gathers() -> None:
    async def test() -> None:
        engine = FakeEngine(model(max_batch_size=8, instances=1), hold=True)
        batcher = batcher_of(engine)
        asks = []
        for _ in range(6):
            asks.append(asyncio.create_task(ask(batcher)))
            await settle()
        # One for the instance, one that waits for it there; four gather here.
        assert [call.images for call in engine.calls] == [1, 1]
        engine.calls[0].finish()
        await settle()
        assert [call.images for call in engine.calls] == [1, 1, 4]
        for call in engine.calls[1:]:
            call.finish()
        await asyncio.gather(*asks)

    run(test())


def test_a_prefetched_batch_is_as_large_as_those_under_way() -> None:
    async def test() -> None:
        engine = FakeEngine(model(max_batch_size=8, instances=1), hold=True)
        batcher = batcher_of(engine)
        with batcher.admission.enter(1, 30.0):
            asks = [asyncio.create_task(ask(batcher)) for _ in range(3)]
            await settle()
            for wanted in ([3], [3], [3, 3]):
                asks.append(asyncio.create_task(ask(batcher)))
                await settle()
                assert [call.images for call in engine.calls] == wanted
            for call in engine.calls:
                call.finish()
            await asyncio.gather(*asks)

    run(test())


def test_an_image_that_was_given_up_is_not_sent() -> None:
    async def test() -> None:
        engine = FakeEngine(model(), hold=True)
        batcher = batcher_of(engine)
        asks = []
        for _ in range(4):
            asks.append(asyncio.create_task(ask(batcher)))
            await settle()
        asks[2].cancel()
        await settle()
        engine.calls[0].finish()
        await settle()
        assert [call.images for call in engine.calls] == [1, 1, 1]
        for call in engine.calls[1:]:
            call.finish()
        results = await asyncio.gather(*asks, return_exceptions=True)
        assert [type(result).__name__ for result in results] == [
            *("NoneType", "NoneType", "CancelledError", "NoneType")
        ]
        assert batcher.admission.waiting == 0

    run(test())


@pytest.mark.parametrize("failure", [ModelNotReady("gone"), ContractBroken("odd"), OSError("x")])
def test_a_failed_call_is_the_answer_of_each_image_in_it(failure: Exception) -> None:
    async def test() -> None:
        engine = FakeEngine(model(), hold=True)
        batcher = batcher_of(engine)
        with batcher.admission.enter(1, 30.0):
            asks = [asyncio.create_task(ask(batcher)) for _ in range(3)]
            await settle()
            engine.calls[0].answer.set_exception(failure)
            results = await asyncio.gather(*asks, return_exceptions=True)
            assert results == [failure] * 3
            # The next one is asked as if nothing had happened.
            another = asyncio.create_task(ask(batcher))
            await settle()
            engine.calls[1].finish()
            await another

    run(test())


def test_what_waits_is_taken_in_fair_order() -> None:
    async def test() -> None:
        engine = FakeEngine(model(max_batch_size=2), hold=True)
        batcher = batcher_of(engine)
        done: list[str] = []

        async def ask_as(client: str) -> None:
            await batcher.infer(IMAGE, client)
            done.append(client)

        with batcher.admission.enter(2, 30.0):
            first = [asyncio.create_task(ask_as("greedy")) for _ in range(4)]
            await settle()
            later = [asyncio.create_task(ask_as("greedy")) for _ in range(6)]
            await settle()
            modest = [asyncio.create_task(ask_as("modest")) for _ in range(2)]
            await settle()
            for number in range(6):
                engine.calls[number].finish()
                await settle()
        await asyncio.gather(*first, *later, *modest)
        # One that comes late shares the next batches with one that has asked for ten.
        assert done[4:8].count("modest") == 2

    run(test())
