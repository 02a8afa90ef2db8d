"""server/serving/process_lane.py: images in processes, with limits of time, CPU and memory."""

import asyncio
import contextlib
import dataclasses
import os
import signal
import subprocess
import sys

import psutil
import pytest
from PIL import Image

from server.problems import DecodingStuck, UnreadableImage
from server.serving import decoder_process, process_lane
from server.serving.buffers import Buffers
from server.serving.decoder_process import DecoderProcess
from server.serving.images import cost
from server.serving.load import Load
from tests.server.serving.images.bombs.parts import encoded
from tests.server.serving.images.bombs.png import png
from tests.server.serving.places import LARGE, RULE, decode, places, run, workers
from tests.waiting import CHECKOUT, frozen

LARGEST = png(7000, 7000, 16, 6, filtered=4)  # some 2 s


def cpu_of(process: psutil.Process) -> float:
    """Seconds of CPU that it has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


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
    monkeypatch.setattr(
        process_lane, "MOST_CPU", 100.0
    )  # else the limit on CPU might end it as well

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
    monkeypatch.setattr(process_lane, "GRACE_SECONDS", 60.0)

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


def test_an_image_that_takes_more_cpu_than_any_may_ends_its_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test() -> None:
        async with places() as pool:
            await decode(pool, LARGE)
            monkeypatch.setattr(process_lane, "MOST_CPU", 1e-4)
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
