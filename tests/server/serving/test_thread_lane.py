"""server/serving/thread_lane.py: images in threads, which nothing can end."""

import asyncio
import gc
import sys
import threading
import time

import pytest

from server.engines.model import Model
from server.observability.timings import Timings
from server.problems import DeadlinePassed, UnreadableImage
from server.serving import thread_lane
from server.serving.buffers import Buffers
from server.serving.classify import INLINE_BYTES, Classifier, Terms
from server.settings import read
from tests.photos import photo
from tests.server.engines.fakes import FakeEngine, model
from tests.server.serving.places import SMALL, decode, places, run


def test_a_thread_goes_on_while_the_event_loop_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a core would rest between two images, as long as a turn of the loop takes."""
    begun = []

    def note(data: bytes, _max_pixels: int) -> None:
        begun.append(data)
        raise UnreadableImage("it is none")

    monkeypatch.setattr(thread_lane, "open_header", note)

    async def test() -> None:
        async with places(threads=1) as pool:
            both = asyncio.gather(*(decode(pool, SMALL) for _ in range(2)), return_exceptions=True)
            await asyncio.sleep(0)  # both are handed over
            deadline = time.monotonic() + 10
            while len(begun) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)  # noqa: ASYNC251 - this is the busy loop
            assert len(begun) == 2
            await both

    run(test())


def test_an_image_that_was_given_up_is_held_only_while_a_thread_works_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(_data: bytes, _max_pixels: int) -> None:
        begun.set()
        go_on.wait(60)
        raise UnreadableImage("it is none")

    monkeypatch.setattr(thread_lane, "open_header", slow)
    buffers = Buffers(2**20, 2**20, 1.0)
    image = photo(0, 800, 600)
    assert len(image) > INLINE_BYTES  # not decoded on the event loop

    async def give_up_two() -> None:
        settings = read(["--decode-threads", "1"], {})
        served: Model = model()
        classifier = Classifier(settings, FakeEngine(served))

        async def give_up(data: bytes, seconds: float) -> None:
            with buffers.hold("a") as hold:
                hold.take(len(data))
                terms = Terms(served, seconds, "a", Timings(0.0), hold)
                try:
                    await classifier.one(data, terms)
                except DeadlinePassed as problem:
                    problem.forget()  # as `Envelope` does
                else:
                    pytest.fail("it was in time")

        try:
            # So long that a thread has begun before, also on a machine that stands still a while.
            first = asyncio.create_task(give_up(image + b"1", 3.0))
            assert await asyncio.to_thread(begun.wait, 60)
            second = image + b"2"
            unheld = sys.getrefcount(second)
            await give_up(second, 0.05)
            await asyncio.sleep(0)  # asyncio's own callbacks still have the exception
            gc.collect()
            # The one that waited for the thread is gone, although it is still in the queue.
            assert sys.getrefcount(second) == unheld
            await first
            assert buffers.held == len(second)
            go_on.set()
            deadline = time.monotonic() + 60
            while buffers.held:
                assert time.monotonic() < deadline, "the thread is done, its image is still held"
                await asyncio.sleep(0.01)
        finally:
            go_on.set()
            await classifier.close()

    asyncio.run(give_up_two())
