"""Images that wait for the same model go to the engine together.

In: one image at a time. Out: its probabilities. Triton's dynamic batcher joins requests anyway;
joining them here first costs one call instead of many, and a call costs more than a small model. No
image waits only to make a batch larger: an image is sent at once unless every instance of the model
has a batch to work on. Then one more batch is sent (prefetch) as soon as it is as large as the
batches under way, so that an instance finds it when it becomes free. Images that wait otherwise are
sent as soon as a call returns. The order of waiting images is fair (server/serving/fairness.py).
"""

import asyncio
import math
from contextvars import Context, copy_context

import numpy as np

from contracts.repository import PROBABILITIES
from contracts.resizing import Pixels
from server.engines.engine import Engine
from server.engines.model import Model, Probabilities
from server.observability import tracing
from server.problems import Problem
from server.serving.admission import Admission
from server.serving.fairness import FairQueue

Answer = tuple[Probabilities, str]
# An image, the outputs that it wants beside the probabilities, its answer; the context is that of
# the request, for the log and for traces.
Waiting = tuple[Pixels, tuple[str, ...], asyncio.Future[Answer], Context]


class Batcher:
    """The queue in front of one model."""

    def __init__(self, engine: Engine, model: Model, seconds: float) -> None:
        """`seconds` bounds each call; afterwards it no longer counts as under way."""
        self.model = model
        self.admission = Admission(model.name)
        self._engine = engine
        self._seconds = seconds
        self._waiting: FairQueue[Waiting] = FairQueue()
        self._under_way: dict[asyncio.Task[None], int] = {}  # the images of each call
        self._will_send = False

    @property
    def queued(self) -> int:
        """Images that wait for a call."""
        return len(self._waiting)

    async def infer(self, image: Pixels, client: str = "", extras: tuple[str, ...] = ()) -> Answer:
        """Probabilities float32[K] of uint8[H, W, 3], and the version that answered.

        Behind the probabilities are the outputs `extras`. Raises as `Engine.infer`.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.push(client, 1, (image, extras, future, copy_context()))
        if self.admission.waiting == 1:
            self._send()  # no other image could join
        elif not self._will_send:
            # Not at once: other images that get ready in this turn of the event loop can join.
            self._will_send = True
            loop.call_soon(self._send)
        try:
            return await future
        finally:
            del future  # it holds its failure, whose traceback holds this frame

    def _send(self) -> None:
        self._will_send = False
        most = max(1, self.model.max_batch_size)
        while len(self._waiting) >= self._enough(most):
            batch: list[Waiting] = []
            while self._waiting and len(batch) < most:
                waiting = self._waiting.pop()
                if not waiting[2].done():  # its request has not been given up
                    batch.append(waiting)
            if batch:
                task = asyncio.create_task(self._run(batch), context=batch[0][3])
                self._under_way[task] = len(batch)
        if not self._waiting and not self._under_way:
            self._waiting.rest()

    def _enough(self, most: int) -> float:
        """The number of waiting images from which on a call is made now."""
        calls = len(self._under_way)
        if calls < self._engine.instances(self.model):
            return 1
        if calls < self._engine.slots(self.model):
            # Small batches one after the other would cost more than they save.
            return min(most, sum(self._under_way.values()) / calls)
        return math.inf

    async def _run(self, batch: list[Waiting]) -> None:
        try:
            images = [image for image, _, _, _ in batch]
            # The batch is computed once, with all outputs that any of its images wants.
            extras = _together(batch)
            with tracing.call(self.model.name, len(images)):
                rows, version = await self._engine.infer(self.model, images, self._seconds, extras)
        except Exception as error:
            if isinstance(error, Problem):
                error.forget()
            # Any error is the answer to each request in the batch.
            for _, _, future, _ in batch:
                if not future.done():
                    future.set_exception(error)
        else:
            for (_, wanted, future, _), row in zip(batch, rows, strict=True):
                if not future.done():
                    mine = row if wanted == extras else _columns(self.model, row, extras, wanted)
                    future.set_result((mine, version))
        finally:
            task = asyncio.current_task()
            if task is not None:
                self._under_way.pop(task, None)
            self._send()


def _together(batch: list[Waiting]) -> tuple[str, ...]:
    """The outputs that any image of a batch wants beside the probabilities, in one order."""
    if not any(wanted for _, wanted, _, _ in batch):
        return ()
    return tuple(sorted({name for _, wanted, _, _ in batch for name in wanted}))


def _columns(
    model: Model, row: Probabilities, computed: tuple[str, ...], wanted: tuple[str, ...]
) -> Probabilities:
    """The part that one image wants of a row with all computed outputs."""
    parts = model.split(row, computed)
    return np.concatenate([parts[PROBABILITIES], *(parts[name] for name in wanted)])
