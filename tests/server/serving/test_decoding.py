"""server/serving/decoding.py: which lane decodes what, the memory of both, and probes."""

import asyncio
import threading

import numpy as np
import pytest

from server.problems import DecodingStuck, TooManyPixels
from server.serving import decoding, thread_lane
from server.serving.images import cost
from server.serving.images import decoding as images
from tests.server.serving.images.bombs.png import png
from tests.server.serving.places import LARGE, RULE, SMALL, decode, places, run, workers


def test_a_process_gives_the_same_pixels_as_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with places() as pool:
            small = await decode(pool, SMALL)
            assert not workers()
            large = await decode(pool, LARGE)
            assert large.pixels.shape == (32, 32, 3)
            assert len(workers()) == 1
            # The same process decodes the next.
            monkeypatch.setattr(cost, "THREAD_SECONDS", 0.0)
            again = await decode(pool, SMALL)
            assert len(workers()) == 1
            np.testing.assert_array_equal(small.pixels, again.pixels)
        assert not workers()

    run(test())


def test_small_work_does_not_stand_behind_large_work() -> None:
    async def test() -> None:
        async with places() as pool:
            await decode(pool, LARGE)
            large = [asyncio.create_task(decode(pool, LARGE)) for _ in range(4)]
            await asyncio.sleep(0.01)
            await decode(pool, SMALL)
            assert not all(task.done() for task in large)
            await asyncio.gather(*large)

    run(test())


def test_memory_is_a_budget_that_large_images_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "PROCESS_BYTES", 1)  # else there would be one process alone

    async def test() -> None:
        price = cost.price("PNG", LARGE, RULE)
        async with places(threads=2, memory=int(2.5 * price.memory)) as pool:
            assert price.memory < pool.processes.memory < 2 * price.memory
            most = 0
            tasks = [asyncio.create_task(decode(pool, LARGE)) for _ in range(4)]
            while not all(task.done() for task in tasks):
                most = max(most, pool.processes.held)
                await asyncio.sleep(0.005)
            await asyncio.gather(*tasks)
            assert price.memory == most
            assert pool.processes.held == 0

    run(test())


@pytest.mark.parametrize(("memory", "processes"), [(2**28, 1), (2**30, 2), (2**31, 4), (2**35, 16)])
def test_where_memory_is_little_there_are_fewer_processes(memory: int, processes: int) -> None:
    async def test() -> None:
        async with places(threads=16, memory=memory) as pool:
            assert pool.processes.places == processes
            assert processes == 1 or processes * decoding.PROCESS_BYTES <= memory / 3

    run(test())


def test_an_image_beyond_the_budget_is_refused() -> None:
    async def test() -> None:
        async with places(memory=2**26) as pool:
            with pytest.raises(
                TooManyPixels, match=r"would take \d+ MiB to decode, this server has"
            ):
                await decode(pool, png(4000, 4000, 16, 6, filtered=4))

    run(test())


def test_a_probe_tells_that_decoding_is_stuck_and_that_it_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on = threading.Event()
    real = images.decode

    async def test() -> None:
        async with places() as pool:
            monkeypatch.setattr(decoding, "PROBE_SECONDS", 60.0)  # of a busy machine
            assert await pool.probe() is None
            monkeypatch.setattr(thread_lane, "decode", lambda *_: go_on.wait(60))
            jam = asyncio.create_task(decode(pool, SMALL))
            await asyncio.sleep(0)  # it has the thread, or is the next one to have it
            monkeypatch.setattr(decoding, "PROBE_SECONDS", 0.2)
            problem = await pool.probe()
            assert isinstance(problem, DecodingStuck)
            assert "1 of 1 places for threads are taken" in problem.detail
            assert pool.oldest > 0.2
            monkeypatch.setattr(decoding, "PROBE_SECONDS", 60.0)
            monkeypatch.setattr(thread_lane, "decode", real)
            go_on.set()
            await jam
            assert await pool.probe() is None
            assert pool.oldest == 0

    run(test())
