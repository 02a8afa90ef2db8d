"""From the bytes of images to predictions: the way every request to /classify takes.

In: images, a `Model` and the seconds they may take. Out: probabilities. What cannot be done in time
is refused before anything is done for it. Decoding happens in a bounded pool of threads; the rest
waits in the event loop, where images for the same model meet.
"""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

from contracts.resizing import Pixels, ResizeRule
from server.engines.engine import Engine
from server.engines.model import Model, Probabilities, check_distribution
from server.images.decoding import decode, is_quick, open_header
from server.niceness import give_way
from server.observability import metrics
from server.observability.timings import Timings
from server.problems import DeadlinePassed, NoImage, Problem
from server.serving.admission import Ticket
from server.serving.batching import Batcher
from server.serving.buffers import Hold
from server.settings import Settings

# For an image this small the hop to a thread and back costs more than decoding it.
INLINE_BYTES = 16 * 2**10
INLINE_PIXELS = 128 * 128

Image = bytes | Pixels  # encoded, or as the model takes it
Answer = tuple[Probabilities, str]  # float32[K], and the version that answered


class Classifier:
    """Classifies images; holds the pool of decoding threads. Close it at the end."""

    def __init__(self, settings: Settings, models: Engine) -> None:
        self.models = models
        self._longest = settings.longest_request
        self._max_pixels = settings.max_pixels
        self._batchers: dict[str, Batcher] = {}
        self._threads = ThreadPoolExecutor(
            settings.decode_threads, thread_name_prefix="decode", initializer=give_way
        )

    def close(self) -> None:
        """End the threads, after the images that they have begun."""
        self._threads.shutdown(cancel_futures=True)

    async def one(
        self,
        data: Image,
        model: Model,
        seconds: float,
        timings: Timings,
        *,
        hold: Hold,
    ) -> Answer:
        """The probabilities for one image, and the version that answered.

        Given up, it keeps `hold` until a thread that has begun to decode the image is done.
        Raises the `Problem` of whatever fails: `TooBusy` at once when `seconds` will not do,
        `DeadlinePassed` when they did not.
        """
        with self._admit(model, 1, seconds, timings) as ticket:
            try:
                async with asyncio.timeout(seconds):
                    return await self._one(data, model, timings, ticket, hold=hold)
            except TimeoutError:
                raise _late(seconds, timings) from None

    async def many(
        self,
        images: Sequence[Image],
        model: Model,
        seconds: float,
        timings: Timings,
        *,
        hold: Hold,
    ) -> tuple[list[Probabilities | Problem], str]:
        """For each image its probabilities or its own problem, and the version that answered.

        Raises the `Problem` of what concerns them all. Keeps `hold` as `one` does.
        """
        version = model.version

        async def result(data: Image, ticket: Ticket) -> Probabilities | Problem:
            nonlocal version
            try:
                if len(data) == 0:
                    raise NoImage("the image has 0 bytes")
                answer, version = await self._one(data, model, timings, ticket, hold=hold)
            except Problem as problem:
                if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise
                return problem
            return answer

        with self._admit(model, len(images), seconds, timings) as ticket:
            try:
                async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                    tasks = [group.create_task(result(data, ticket)) for data in images]
            except TimeoutError:
                raise _late(seconds, timings) from None
            except ExceptionGroup as failures:
                # All wait for the same Triton: one reason speaks for all.
                raise failures.exceptions[0] from None
        return [task.result() for task in tasks], version

    def check(self, model: Model, images: int, seconds: float) -> None:
        """Raise `TooBusy` or `ModelNotReady` if so many images would be refused now."""
        self._batcher(model).gate.check(images, seconds)

    def _admit(self, model: Model, images: int, seconds: float, timings: Timings) -> Ticket:
        began = time.perf_counter()
        try:
            return self._batcher(model).gate.enter(images, seconds)
        finally:
            timings.admission = time.perf_counter() - began

    async def _one(
        self,
        data: Image,
        model: Model,
        timings: Timings,
        ticket: Ticket,
        *,
        hold: Hold,
    ) -> Answer:
        try:
            pixels = (
                await self._pixels(data, model.rule, timings, hold)
                if isinstance(data, bytes)
                else data
            )
        except Problem:
            ticket.done()
            raise
        began = time.perf_counter()
        try:
            probabilities, version = await self._batcher(model).infer(pixels)
        finally:
            timings.inference = time.perf_counter() - began
            timings.average_batch = self.models.average_batch.get(model.name)
        ticket.done()
        check_distribution(model.name, probabilities, model.parameters)
        return probabilities, version

    def _batcher(self, model: Model) -> Batcher:
        batcher = self._batchers.get(model.name)
        if batcher is None or batcher.model is not model:
            batcher = Batcher(self.models, model, self._longest)
            self._batchers[model.name] = batcher
        return batcher

    async def _pixels(self, data: bytes, rule: ResizeRule, timings: Timings, hold: Hold) -> Pixels:
        submitted = time.perf_counter()
        if len(data) <= INLINE_BYTES and is_quick(data):
            image = open_header(data, self._max_pixels)
            if image.width * image.height <= INLINE_PIXELS:
                metrics.image_pixels.observe(image.width * image.height)
                pixels = decode(image, rule)
                _add(timings, decode=time.perf_counter() - submitted, queue=0.0)
                return pixels

        waiting = [data]  # until a thread begins with it

        def work() -> tuple[Pixels, float, float]:
            began = time.perf_counter()
            image = open_header(waiting.pop(), self._max_pixels)
            metrics.image_pixels.observe(image.width * image.height)
            pixels = decode(image, rule)
            return pixels, began, time.perf_counter()

        job = self._threads.submit(work)
        try:
            pixels, began, ended = await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            if job.cancel():
                # No thread will begin, but `work` stays in the queue until one comes to it there.
                waiting.clear()
            else:
                loop = asyncio.get_running_loop()
                hold.keep()
                job.add_done_callback(lambda _: loop.call_soon_threadsafe(hold.release))
            raise
        _add(timings, decode=ended - began, queue=began - submitted)
        return pixels


def _late(seconds: float, timings: Timings) -> DeadlinePassed:
    where = "waiting for inference" if timings.decode is not None else "waiting to be decoded"
    return DeadlinePassed(
        f"the request was still {where} after {seconds:g} s; try again when the server is less busy"
    )


def _add(timings: Timings, *, decode: float, queue: float) -> None:
    timings.decode = (timings.decode or 0.0) + decode
    timings.queue = (timings.queue or 0.0) + queue
