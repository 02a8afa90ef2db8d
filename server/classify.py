"""From the bytes of pictures to predictions: the way every request to /classify takes.

In: encoded pictures and a `Model`. Out: predictions as plain data for JSON. Decoding happens in a
bounded pool of threads; the rest waits in the event loop, so that many requests meet in Triton's
dynamic batch.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from server.bodies import Upload
from server.contract import Model
from server.images import decode, open_header
from server.middleware import Timings
from server.models import Models
from server.problems import DeadlinePassed, ModelNotReady, NoImage, Problem, TritonAway
from server.resizing import Pixels, ResizeRule
from server.settings import Settings
from server.triton import Probabilities

# For a picture this small the hop to a thread and back costs more than decoding it.
INLINE_BYTES = 16 * 2**10
INLINE_PIXELS = 128 * 128

Predictions = list[dict[str, object]]


class Classifier:
    """Classifies pictures; holds the pool of decoding threads. Close it at the end."""

    def __init__(self, settings: Settings, models: Models) -> None:
        self.models = models
        self._timeout = settings.request_timeout
        self._max_pixels = settings.max_pixels
        self._threads = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode")

    def close(self) -> None:
        """End the threads, after the pictures that they have begun."""
        self._threads.shutdown(cancel_futures=True)

    async def one(
        self, data: bytes, model: Model, top_k: int, timings: Timings
    ) -> tuple[Predictions, str]:
        """The predictions for one picture, best first, and the version that made them.

        Raises the `Problem` of whatever fails, `DeadlinePassed` when it takes too long.
        """
        try:
            async with asyncio.timeout(self._timeout):
                pixels = await self._pixels(data, model.rule, timings)
                probabilities, version = await self._infer(model, pixels[None], timings)
        except TimeoutError:
            raise self._late(timings) from None
        return predictions(model, probabilities[0], top_k), version

    async def many(
        self, uploads: list[Upload], model: Model, top_k: int, timings: Timings
    ) -> tuple[list[Predictions | Problem], str]:
        """For each picture its predictions or its own problem, and the version that answered.

        Raises the `Problem` of what concerns them all.
        """
        try:
            async with asyncio.timeout(self._timeout):
                return await self._many(uploads, model, top_k, timings)
        except TimeoutError:
            raise self._late(timings) from None

    async def _many(
        self, uploads: list[Upload], model: Model, top_k: int, timings: Timings
    ) -> tuple[list[Predictions | Problem], str]:
        tasks = [self._pixels_or_problem(upload, model.rule, timings) for upload in uploads]
        decoded = await asyncio.gather(*tasks)
        good = [pixels for pixels in decoded if not isinstance(pixels, Problem)]
        if not good:
            return [p for p in decoded if isinstance(p, Problem)], model.version
        step = max(1, model.max_batch_size)
        batches = [np.stack(good[at : at + step]) for at in range(0, len(good), step)]
        answers = await asyncio.gather(*(self._infer(model, batch, timings) for batch in batches))
        rows = iter(np.concatenate([probabilities for probabilities, _ in answers]))
        return [
            one if isinstance(one, Problem) else predictions(model, next(rows), top_k)
            for one in decoded
        ], answers[0][1]

    async def _pixels_or_problem(
        self, upload: Upload, rule: ResizeRule, timings: Timings
    ) -> Pixels | Problem:
        if not upload.data:
            return NoImage("the picture has 0 bytes")
        try:
            return await self._pixels(upload.data, rule, timings)
        except Problem as problem:
            return problem

    async def _pixels(self, data: bytes, rule: ResizeRule, timings: Timings) -> Pixels:
        submitted = time.perf_counter()
        if len(data) <= INLINE_BYTES:
            image = open_header(data, self._max_pixels)
            if image.width * image.height <= INLINE_PIXELS:
                pixels = decode(image, rule, self._max_pixels)
                _add(timings, decode=time.perf_counter() - submitted, queue=0.0)
                return pixels

        def work() -> tuple[Pixels, float, float]:
            began = time.perf_counter()
            pixels = decode(open_header(data, self._max_pixels), rule, self._max_pixels)
            return pixels, began, time.perf_counter()

        loop = asyncio.get_running_loop()
        pixels, began, ended = await loop.run_in_executor(self._threads, work)
        _add(timings, decode=ended - began, queue=began - submitted)
        return pixels

    async def _infer(
        self, model: Model, images: Pixels, timings: Timings
    ) -> tuple[Probabilities, str]:
        began = time.perf_counter()
        try:
            return await self.models.triton.infer(model.name, images, self._timeout)
        except (TritonAway, ModelNotReady):
            self.models.suspect()
            raise
        finally:
            timings.inference = time.perf_counter() - began
            timings.average_batch = self.models.average_batch.get(model.name)

    def _late(self, timings: Timings) -> DeadlinePassed:
        where = "waiting for inference" if timings.decode is not None else "waiting to be decoded"
        return DeadlinePassed(
            f"the request was still {where} after {self._timeout:g} s; try again when the server "
            "is less busy"
        )


def predictions(model: Model, probabilities: Probabilities, top_k: int) -> Predictions:
    """The `top_k` most probable of float32[K] classes, best first; of equals the first index."""
    classes = np.arange(len(probabilities))
    if top_k < len(classes):
        classes = np.argpartition(probabilities, -top_k)[-top_k:]
    best = classes[np.lexsort((classes, -probabilities[classes]))]
    # Seven digits are what a float32 has; its digits as a float64 would claim more.
    return [
        {
            "label": model.labels[index],
            "index": index,
            "probability": float(f"{probabilities[index]:.7g}"),
        }
        for index in best.tolist()
    ]


def _add(timings: Timings, *, decode: float, queue: float) -> None:
    timings.decode = (timings.decode or 0.0) + decode
    timings.queue = (timings.queue or 0.0) + queue
