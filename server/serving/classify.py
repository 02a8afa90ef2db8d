"""From the bytes of images to predictions: the way every request to /classify takes.

In: images, a `Model`, the client and the seconds they may take. Out: probabilities. A request that
cannot be answered in time is refused before any work is done for it. Each image has a price,
computed from its header; decoding happens in bounded places (server/serving/decoding.py);
everything else happens in the event loop, where images for the same model join a batch.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from contracts.resizing import Pixels
from server.engines.engine import Engine
from server.engines.model import Model, Probabilities, check_distribution
from server.observability import metrics
from server.observability.timings import Timings
from server.problems import DeadlinePassed, NoImage, Problem
from server.serving.admission import Ticket
from server.serving.batching import Batcher
from server.serving.buffers import Hold
from server.serving.decoding import Decoding
from server.serving.images import cost
from server.serving.images.cost import Price
from server.serving.images.decoding import decode, is_quick, kind_of, open_header
from server.serving.lanes import SHADOW_CLIENT
from server.settings import Settings

# For an image this small the hop to a thread and back costs more than decoding it.
INLINE_BYTES = 16 * 2**10
INLINE_PIXELS = 128 * 128
INLINE_SCANS = 20  # of a JPEG: others have about 10
START_OF_SCAN = b"\xff\xda"
# Up to this size the event loop computes the price: it takes a tenth of a millisecond, 3 for the
# worst file; above this size a thread does it. In other formats the parts are read one by one.
PRICED_INLINE_BYTES = {"JPEG": 256 * 2**10, "PNG": 64 * 2**10}
PRICED_INLINE_BYTES_OF_OTHERS = 16 * 2**10

Image = bytes | Pixels  # encoded, or as the model takes it
# float32[K], behind them the extras that were asked for, and the version that answered
Answer = tuple[Probabilities, str]


@dataclass(frozen=True)
class Terms:
    """What a request wants, who it is from, and the seconds that it may take."""

    model: Model
    seconds: float
    client: str
    timings: Timings
    hold: Hold
    extras: tuple[str, ...] = ()  # outputs to have behind the probabilities


class Classifier:
    """Classifies images; holds the places where they are decoded. Close it at the end."""

    def __init__(self, settings: Settings, models: Engine) -> None:
        self.models = models
        self._longest = settings.longest_request
        self._max_pixels = settings.max_pixels
        self._batchers: dict[str, Batcher] = {}
        self.decoding = Decoding(
            settings.decode_threads, settings.decode_bytes, settings.max_pixels
        )

    async def close(self) -> None:
        """End the threads, after the images that they have begun, and the processes."""
        await self.decoding.close()

    async def one(self, data: Image, terms: Terms) -> Answer:
        """The probabilities for one image, and the version that answered.

        If the call is given up, `hold` is kept until a thread that has begun to decode the image is
        done. Raises the `Problem` of whatever fails: `TooBusy` at once if the seconds will not be
        enough, `DeadlinePassed` if they were not.
        """
        with self._admit(1, terms) as ticket:
            try:
                async with asyncio.timeout(terms.seconds):
                    return await self._one(data, terms, ticket)
            except TimeoutError:
                raise _late(terms) from None

    async def many(
        self, images: Sequence[Image], terms: Terms
    ) -> tuple[list[Probabilities | Problem], str]:
        """For each image its probabilities or its own problem, and the version that answered.

        Raises a `Problem` that concerns all images. Keeps `hold` as `one` does.
        """
        version = terms.model.version

        async def result(data: Image, ticket: Ticket) -> Probabilities | Problem:
            nonlocal version
            try:
                if len(data) == 0:
                    raise NoImage("the image has 0 bytes")
                answer, version = await self._one(data, terms, ticket)
            except Problem as problem:
                if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise
                return problem
            return answer

        with self._admit(len(images), terms) as ticket:
            try:
                async with asyncio.timeout(terms.seconds), asyncio.TaskGroup() as group:
                    tasks = [group.create_task(result(data, ticket)) for data in images]
            except TimeoutError:
                raise _late(terms) from None
            except ExceptionGroup as failures:
                # All images wait for the same engine: the first failure stands for all.
                raise failures.exceptions[0] from None
        return [task.result() for task in tasks], version

    def check(self, model: Model, images: int, seconds: float, client: str) -> None:
        """Raise `TooBusy` or `ModelNotReady` if so many images would be refused now."""
        self._batcher(model).admission.check(images, seconds, client)

    @property
    def queued(self) -> int:
        """Images that wait for a place where they are decoded, or for a call of an engine."""
        return self.decoding.queued + sum(each.queued for each in self._batchers.values())

    def _admit(self, images: int, terms: Terms) -> Ticket:
        began = time.perf_counter()
        try:
            return self._batcher(terms.model).admission.enter(images, terms.seconds, terms.client)
        finally:
            terms.timings.admission = time.perf_counter() - began

    async def _one(self, data: Image, terms: Terms, ticket: Ticket) -> Answer:
        model, timings = terms.model, terms.timings
        try:
            pixels = await self._pixels(data, terms) if isinstance(data, bytes) else data
        except Problem:
            ticket.refused()
            raise
        ticket.begin()
        began = time.perf_counter()
        try:
            row, version = await self._batcher(model).infer(pixels, terms.client, terms.extras)
        finally:
            timings.inference = time.perf_counter() - began
            timings.average_batch = self.models.average_batch.get(model.name)
        ticket.done()
        probabilities = row[: model.classes] if terms.extras else row
        check_distribution(model.name, probabilities, model.parameters)
        return row, version

    def _batcher(self, model: Model) -> Batcher:
        batcher = self._batchers.get(model.name)
        if batcher is None or batcher.model is not model:
            batcher = Batcher(self.models, model, self._longest)
            self._batchers[model.name] = batcher
        return batcher

    async def _pixels(self, data: bytes, terms: Terms) -> Pixels:
        began = time.perf_counter()
        rule, timings = terms.model.rule, terms.timings
        if _may_be_inline(data):
            image = open_header(data, self._max_pixels)
            if image.width * image.height <= INLINE_PIXELS:
                if terms.client != SHADOW_CLIENT:
                    metrics.image_pixels.observe(image.width * image.height)
                pixels = decode(image, rule)
                _add(timings, decode=time.perf_counter() - began, queue=0.0)
                return pixels
        price = await self._price(data, terms)
        decoded = await self.decoding.decode(
            data, rule, price, client=terms.client, seconds=terms.seconds, hold=terms.hold
        )
        _add(timings, decode=decoded.took, queue=decoded.waited)
        return decoded.pixels

    async def _price(self, data: bytes, terms: Terms) -> Price:
        """The image's price. Raises `UnsupportedType`, `UnreadableImage`, or `TooManyPixels`."""
        rule, kind = terms.model.rule, kind_of(data)
        if len(data) <= PRICED_INLINE_BYTES.get(kind, PRICED_INLINE_BYTES_OF_OTHERS):
            price = cost.price(kind, data, rule)
        else:
            price = await asyncio.to_thread(cost.price, kind, data, rule)
        cost.check(price, self._max_pixels, rule)
        return price


def _may_be_inline(data: bytes) -> bool:
    """Whether decoding takes less than a millisecond, provided that the image has few pixels."""
    small = len(data) <= INLINE_BYTES and data.count(START_OF_SCAN) <= INLINE_SCANS
    return small and is_quick(data)


def _late(terms: Terms) -> DeadlinePassed:
    where = "waiting for inference" if terms.timings.decode is not None else "waiting to be decoded"
    return DeadlinePassed(
        f"the request was still {where} after {terms.seconds:g} s; "
        "try again when the server is less busy, or allow more time (X-Request-Timeout)"
    )


def _add(timings: Timings, *, decode: float, queue: float) -> None:
    timings.decode = (timings.decode or 0.0) + decode
    timings.queue = (timings.queue or 0.0) + queue
