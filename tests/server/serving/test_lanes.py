"""server/serving/lanes.py: whose turn it is in a lane, what it refuses, and what is given up."""

import asyncio
import contextlib
import threading

import pytest

from contracts.images.encoded import EncodedImage
from contracts.resizing import Pixels, ResizeRule
from server.problems import TooBusy
from server.serving import thread_lane
from server.serving.buffers import Buffers
from server.serving.decoding import Decoding
from server.serving.images import cost
from server.serving.images import decoding as images
from server.serving.lanes import Decoded, Work
from tests.server.serving.places import LARGE, RULE, SMALL, decode, places, run


def test_clients_take_turns_in_a_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    real = images.decode

    def slow(image: EncodedImage, rule: ResizeRule) -> Pixels:
        go_on.wait(60)
        return real(image, rule)

    monkeypatch.setattr(thread_lane, "decode", slow)

    async def test() -> None:
        order: list[str] = []

        async def ask(pool: Decoding, client: str) -> None:
            await decode(pool, SMALL, client)
            order.append(client)

        async with places() as pool:
            greedy = [asyncio.create_task(ask(pool, "greedy")) for _ in range(20)]
            await asyncio.sleep(0)  # each goes as far as it comes without an answer
            modest = [asyncio.create_task(ask(pool, "modest")) for _ in range(3)]
            await asyncio.sleep(0)
            assert pool.queued == 23 - 2  # but for the one that is decoded, and one that is ready
            go_on.set()
            await asyncio.gather(*greedy, *modest)
        assert [n for n, client in enumerate(order) if client == "modest"][-1] <= 7

    run(test())


def test_what_would_come_too_late_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(thread_lane, "decode", lambda *_: go_on.wait(60))

    async def test() -> None:
        async with places() as pool:
            price = cost.price("JPEG", SMALL, RULE)
            most = int(0.5 * 1.0 / price.seconds)
            waiting = [
                asyncio.create_task(decode(pool, SMALL, "greedy", 1.0)) for _ in range(2 * most)
            ]
            # Each goes as far as it comes without an answer, which none gets: a refusal comes in
            # this turn of the event loop, and the deadlines pass only in a later one.
            await asyncio.sleep(0)
            refused = [task for task in waiting if task.done()]
            assert len(refused) == pytest.approx(most, abs=3)
            assert all(isinstance(task.exception(), TooBusy) for task in refused)
            # Another client is not refused: its turn comes next.
            modest = asyncio.create_task(decode(pool, SMALL, "modest", 1.0))
            await asyncio.sleep(0)
            assert not modest.done()
            go_on.set()
            await asyncio.gather(*waiting, modest, return_exceptions=True)

    run(test())


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["thread", "process"])
def test_an_image_that_is_given_up_as_its_answer_comes_is_not_held(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with places() as pool:
            bodies = Buffers(2**25, 2**28, 1.0)

            async def ask() -> None:
                with bodies.hold() as hold:
                    hold.take(len(data))
                    price = cost.price("PNG" if data is LARGE else "JPEG", data, RULE)
                    await pool.decode(data, RULE, price, client="a", seconds=10**6, hold=hold)

            asking = asyncio.create_task(ask())

            def end_and_cancel(work: Work, done: float) -> None:
                end(work, done)
                # After the answer was given, and before the request has seen it.
                if work.answer.done():
                    asking.cancel()
                else:
                    asyncio.get_running_loop().call_soon(asking.cancel)

            lane = pool.processes if data is LARGE else pool.threads
            end = lane._end
            monkeypatch.setattr(lane, "_end", end_and_cancel)
            with contextlib.suppress(asyncio.CancelledError):
                await asking
            await asyncio.sleep(0)
            assert bodies.held == 0

    run(test())


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["thread", "process"])
def test_an_image_that_is_given_up_just_before_its_answer_comes_is_held_once(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its bytes would count for ever, or those of the request's other images no longer."""

    async def test() -> None:
        async with places() as pool:
            bodies = Buffers(2**25, 2**28, 1.0)
            request = bodies.hold()
            request.take(len(data))
            request.keep()  # for another image of the request
            price = cost.price("PNG" if data is LARGE else "JPEG", data, RULE)

            async def ask() -> None:
                with request:
                    await pool.decode(data, RULE, price, client="a", seconds=10**6, hold=request)

            asking = asyncio.create_task(ask())
            settle = Work.settle

            def cancel_and_settle(work: Work, outcome: Decoded | BaseException) -> None:
                asking.cancel()  # which the request sees only in the next turn of the loop
                settle(work, outcome)

            monkeypatch.setattr(Work, "settle", cancel_and_settle)
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert bodies.held == len(data)
            request.release()
            assert bodies.held == 0

    run(test())
