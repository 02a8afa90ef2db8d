"""server/serving/decoding.py: who is decoded where and when, with real threads and processes."""

import asyncio
import contextlib
import dataclasses
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from contracts.images.encoded import EncodedImage
from contracts.resizing import Pixels, ResizeRule
from server.engines.model import Model
from server.observability.timings import Timings
from server.problems import (
    DeadlinePassed,
    DecodingStuck,
    TooBusy,
    TooManyPixels,
    UnreadableImage,
)
from server.serving import decoder_process, decoding
from server.serving.buffers import Buffers
from server.serving.classify import INLINE_BYTES, Classifier, Terms
from server.serving.decoder_process import DecoderProcess
from server.serving.decoding import Decoding
from server.serving.images import cost
from server.serving.images import decoding as images
from server.serving.lanes import Decoded, Lane, Work
from server.serving.load import Load
from server.settings import read
from tests.photos import photo
from tests.server.engines.fakes import FakeEngine, model
from tests.server.serving.images.bombs.parts import encoded
from tests.server.serving.images.bombs.png import png
from tests.waiting import CHECKOUT, frozen

RULE = ResizeRule(32, 32)
BYTES = 2**28
PIXELS = 50_000_000
SMALL = photo(0)
# 4 million pixels of 16 bits and alpha: some 0.2 s, so that it goes to a process.
LARGE = png(2000, 2000, 16, 6, filtered=4)
LARGEST = png(7000, 7000, 16, 6, filtered=4)  # some 2 s


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 100))


@contextlib.asynccontextmanager
async def places(threads: int = 1, memory: int = BYTES) -> AsyncIterator[Decoding]:
    pool = Decoding(threads, memory, PIXELS)
    try:
        yield pool
    finally:
        await pool.close()


async def decode(
    pool: Decoding, data: bytes, client: str = "a", seconds: float = 1e6, kind: str = "JPEG"
) -> Decoded:
    kind = "PNG" if data.startswith(b"\x89PNG") else kind
    price = cost.price(kind, data, RULE)
    with Buffers(2**25, 2**28, 1.0).hold() as hold:
        async with asyncio.timeout(seconds):
            return await pool.decode(data, RULE, price, client=client, seconds=seconds, hold=hold)


def workers() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if "server.serving.images.worker" in child.cmdline()]


def cpu_of(process: psutil.Process) -> float:
    """Seconds of CPU that it has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


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


def test_a_broken_image_is_the_same_problem_in_a_process() -> None:
    async def test() -> None:
        async with places() as pool:
            with pytest.raises(UnreadableImage, match="cannot be decoded"):
                await decode(pool, LARGE[: len(LARGE) // 2])
            await decode(pool, LARGE)

    run(test())


def test_a_deadline_that_passes_frees_the_core_within_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also that of an image which would take some seconds more."""
    monkeypatch.setattr(decoding, "MOST_CPU", 100.0)  # else the limit on CPU might end it as well

    async def test() -> None:
        async with places(memory=2**30) as pool:
            await decode(pool, LARGE)
            [worker] = workers()
            with pytest.raises(TimeoutError):
                await decode(pool, LARGEST, seconds=0.1)
            used = before = cpu_of(worker)
            async with asyncio.timeout(20):
                while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
                    with contextlib.suppress(psutil.Error):  # it has ended meanwhile
                        used = cpu_of(worker)
                    await asyncio.sleep(0.01)
            # Of the core, not of a clock, which runs on while the machine stands still.
            assert used - before < 1.0
            # Another takes its place.
            await decode(pool, LARGE)

    run(test())


def test_an_image_that_is_nearly_done_does_not_cost_a_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client that hangs up again and again is no dearer than one that waits."""
    monkeypatch.setattr(decoding, "GRACE_SECONDS", 60.0)

    async def test() -> None:
        async with places() as pool:
            await decode(pool, LARGE)
            [worker] = workers()
            price = cost.price("PNG", LARGE, RULE)
            bodies = Buffers(2**25, 2**28, 1.0)
            for _ in range(2):
                with bodies.hold() as hold:
                    hold.take(len(LARGE))
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.001):
                            await pool.decode(
                                LARGE, RULE, price, client="a", seconds=10**6, hold=hold
                            )
                assert bodies.held == len(LARGE)
                await decode(pool, LARGE, seconds=10**6)
                assert bodies.held == 0
            assert workers() == [worker]

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

            def end_and_cancel(lane: Lane, work: Work, done: float) -> None:
                end(lane, work, done)
                # After the answer was given, and before the request has seen it.
                if work.answer.done():
                    asking.cancel()
                else:
                    asyncio.get_running_loop().call_soon(asking.cancel)

            end = pool._end
            monkeypatch.setattr(pool, "_end", end_and_cancel)
            with contextlib.suppress(asyncio.CancelledError):
                await asking
            await asyncio.sleep(0)
            assert bodies.held == 0

    run(test())


def test_an_image_that_takes_more_cpu_than_any_may_ends_its_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test() -> None:
        async with places() as pool:
            await decode(pool, LARGE)
            monkeypatch.setattr(decoding, "MOST_CPU", 1e-4)
            with pytest.raises(UnreadableImage, match=r"takes more than 0\.\d s of CPU"):
                await decode(pool, LARGE)
            monkeypatch.undo()
            await decode(pool, LARGE)

    run(test())


def test_the_kernel_ends_a_process_whose_gateway_is_gone() -> None:
    """Also where the gateway was started with the signal blocked, as some do."""
    forever = """
import signal, time
from contracts.resizing import ResizeRule
from server.serving.images import worker
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGXCPU})
worker._lower_priority()
with worker._limited(worker.Job(ResizeRule(32, 32), 1, 0.1, 2**30)):
    while time.process_time() < 20: pass
"""
    process = subprocess.run(
        [sys.executable, "-c", forever], check=False, cwd=CHECKOUT, timeout=100
    )
    assert process.returncode == -signal.SIGXCPU


def test_an_image_that_takes_more_memory_than_its_price_is_refused() -> None:
    async def test() -> None:
        async with places(memory=2**30) as pool:
            data = encoded(Image.new("RGBA", (4000, 4000)), "WEBP", lossless=True, quality=0)
            right = cost.price("WEBP", data, RULE)
            price = dataclasses.replace(right, memory=0)
            with Buffers(2**25, 2**28, 1.0).hold() as hold:
                with pytest.raises(
                    UnreadableImage, match=r"more than the 0 MiB|cannot be read|cannot be decoded"
                ):
                    await pool.decode(data, RULE, price, client="a", seconds=30, hold=hold)
                await pool.decode(data, RULE, right, client="a", seconds=30, hold=hold)

    run(test())


def test_a_stopped_process_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with places() as pool:
            await decode(pool, LARGE)
            [worker] = workers()
            with monkeypatch.context() as hurry, frozen(worker.pid):
                hurry.setattr(decoder_process, "STUCK_SECONDS", 0.4)
                with pytest.raises(DecodingStuck):
                    await decode(pool, LARGE)
            # Until one has worked again, the processes are probed as well.
            async with asyncio.timeout(60):
                while await pool.probe() is not None:
                    pass  # a busy machine starts one slowly
            await decode(pool, LARGE)

    run(test())


def test_an_idle_process_that_was_killed_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the kernel, where memory is short: the next image is not to blame."""
    started: list[DecoderProcess] = []
    start = DecoderProcess.start

    async def recorded() -> DecoderProcess:
        started.append(await start())
        return started[-1]

    monkeypatch.setattr(DecoderProcess, "start", recorded)

    async def test() -> None:
        async with places() as pool:
            await decode(pool, LARGE)
            await started[0].kill()  # as the kernel does, of which the pool knows nothing
            await decode(pool, LARGE)
            assert len(started) == 2

    run(test())


def test_a_process_that_is_killed_over_an_image_is_not_the_fault_of_the_image() -> None:
    async def test() -> None:
        async with places() as pool:
            await decode(pool, LARGE)
            [worker] = workers()
            with frozen(worker.pid):
                under_way = asyncio.create_task(decode(pool, LARGE))
                await asyncio.sleep(0.05)
                os.kill(worker.pid, signal.SIGKILL)
                with pytest.raises(DecodingStuck, match="was killed; try again"):
                    await under_way
            await decode(pool, LARGE)

    run(test())


def test_the_time_in_which_a_process_starts_is_not_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it seems to do a fraction of what it does, and others are refused."""
    order: list[str] = []
    start, begin = DecoderProcess.start, Load.begin

    async def started() -> DecoderProcess:
        process = await start()
        order.append("started")
        return process

    def begun(load: Load, amount: float) -> None:
        order.append("begun")
        begin(load, amount)

    monkeypatch.setattr(DecoderProcess, "start", started)
    monkeypatch.setattr(Load, "begin", begun)

    async def test() -> None:
        async with places() as pool:
            await decode(pool, LARGE)
            assert order == ["started", "begun"]

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


def test_clients_take_turns_in_a_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    real = images.decode

    def slow(image: EncodedImage, rule: ResizeRule) -> Pixels:
        go_on.wait(60)
        return real(image, rule)

    monkeypatch.setattr(decoding, "decode", slow)

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
    monkeypatch.setattr(decoding, "decode", lambda *_: go_on.wait(60))

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


def test_memory_is_a_budget_that_large_images_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "PROCESS_BYTES", 1)  # else there would be one process alone

    async def test() -> None:
        price = cost.price("PNG", LARGE, RULE)
        async with places(threads=2, memory=int(2.5 * price.memory)) as pool:
            assert price.memory < pool.memory < 2 * price.memory
            most = 0
            tasks = [asyncio.create_task(decode(pool, LARGE)) for _ in range(4)]
            while not all(task.done() for task in tasks):
                most = max(most, pool.held)
                await asyncio.sleep(0.005)
            await asyncio.gather(*tasks)
            assert price.memory == most
            assert pool.held == 0

    run(test())


@pytest.mark.parametrize(("memory", "processes"), [(2**28, 1), (2**30, 2), (2**31, 4), (2**35, 16)])
def test_where_memory_is_little_there_are_fewer_processes(memory: int, processes: int) -> None:
    async def test() -> None:
        async with places(threads=16, memory=memory) as pool:
            assert pool.processes == processes
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
            monkeypatch.setattr(decoding, "decode", lambda *_: go_on.wait(60))
            jam = asyncio.create_task(decode(pool, SMALL))
            await asyncio.sleep(0)  # it has the thread, or is the next one to have it
            monkeypatch.setattr(decoding, "PROBE_SECONDS", 0.2)
            problem = await pool.probe()
            assert isinstance(problem, DecodingStuck)
            assert "1 of 1 places for threads are taken" in problem.detail
            assert pool.oldest > 0.2
            monkeypatch.setattr(decoding, "PROBE_SECONDS", 60.0)
            monkeypatch.setattr(decoding, "decode", real)
            go_on.set()
            await jam
            assert await pool.probe() is None
            assert pool.oldest == 0

    run(test())


def test_a_thread_goes_on_while_the_event_loop_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a core would rest between two images, as long as a turn of the loop takes."""
    begun = []

    def note(data: bytes, _max_pixels: int) -> None:
        begun.append(data)
        raise UnreadableImage("it is none")

    monkeypatch.setattr(decoding, "open_header", note)

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

    monkeypatch.setattr(decoding, "open_header", slow)
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
