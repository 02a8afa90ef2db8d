"""One of the Tritons behind the gateway: its connection, what it serves, what is under way to it.

In: an address. Out: answers, and whether each of its models answers a canary as it did when it was
loaded. A model whose answers are doubted is asked until it is well again. A call that a dead or
frozen Triton would keep is given back to the caller; the call itself runs to its end.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence

import numpy as np

from contracts.resizing import Pixels
from server.engines.triton.catalogue import Models
from server.engines.triton.client import Probabilities, TritonClient
from server.engines.triton.model import Model, canary, check_distribution
from server.problems import ContractBroken, DeadlinePassed, ModelNotReady, Problem, TritonAway

# A dead backend must be told within 5 s: by a canary that takes no longer than this.
CANARY_TIMEOUT = 3.0
# A batchmate may move a probability by rounding; a broken model moves it by far more.
CANARY_TOLERANCE = 1e-2
DOUBT_SECONDS = 0.5  # between the canaries of a model that is doubted
# A model is only slow, not stuck, while it is silent for no more than so many of its usual calls.
SILENT_CALLS = 3


class Replica:
    """Made inside the running event loop, in which it watches its Triton until `close`."""

    def __init__(
        self, url: str, average_batch: dict[str, float], changed: Callable[[], None]
    ) -> None:
        """`changed` is called when another answer could be given to what this Triton serves."""
        self.url = url
        self.models = Models(TritonClient(url), average_batch, changed)
        self.pending = 0  # calls under way
        # Images so far. The start differs between gateways: were it the same, all of them would
        # send to the same Triton at the same time, for ever.
        self.given = secrets.randbelow(2**32) / 2**32
        self.doubted: set[str] = set()  # models to be avoided as long as another Triton has them
        self.failed: dict[str, Problem] = {}  # those of them whose last canary failed
        self._changed = changed
        self._usual: dict[str, float] = {}  # seconds per call of each model, smoothed
        self._leaving: dict[asyncio.Timeout, str] = {}
        self._watch = asyncio.create_task(self.models.watch())
        self._doubts: set[asyncio.Task[None]] = set()
        self._closed = False

    async def close(self, patience: float) -> None:
        """Let the calls under way end, for at most `patience` seconds, then disconnect."""
        self._closed = True
        tasks = [self._watch, *self._doubts]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.models.triton.close(patience)

    async def infer(
        self, name: str, images: Sequence[Pixels], seconds: float
    ) -> tuple[Probabilities, str]:
        """As `TritonClient.infer`; raises `TritonAway` also when `leave` is called meanwhile."""
        began = time.monotonic()
        self.pending += 1
        patience = asyncio.timeout(None)
        try:
            async with patience:
                self._leaving[patience] = name
                answer = await self.models.triton.infer(name, images, seconds)
        except TimeoutError:
            raise TritonAway(f"Triton at {self.url} answers no more") from None
        finally:
            self._leaving.pop(patience, None)
            self.pending -= 1
        self.models.worked[name] = now = time.monotonic()
        self._usual[name] = 0.9 * self._usual.get(name, now - began) + 0.1 * (now - began)
        return answer

    def leave(self, name: str) -> None:
        """Let those who wait for this model here ask elsewhere."""
        for patience, asked in list(self._leaving.items()):
            if asked == name:
                del self._leaving[patience]
                patience.reschedule(asyncio.get_running_loop().time())

    def doubt(self, name: str) -> None:
        """A call failed: look whether Triton is there, and let the model sing until it is well."""
        self.models.suspect()
        if name not in self.doubted and not self._closed:
            self.doubted.add(name)
            self._changed()
            task = asyncio.create_task(self._until_well(name))
            self._doubts.add(task)
            task.add_done_callback(self._doubts.discard)

    async def _until_well(self, name: str) -> None:
        while name in self.doubted:
            model = self.models.entries.get(name)
            # One that is not loaded is not used, and answers its canary before it is loaded again.
            if self.models.away is None and isinstance(model, Model) and await self.sing(model):
                await asyncio.sleep(DOUBT_SECONDS)
            else:
                self._judge(name, None)

    async def check(self) -> list[Problem]:
        """What is wrong with its models, after each that was well has been given its canary."""
        loaded = self.models.loaded()
        songs = (self.sing(model) for model in loaded if model.name not in self.failed)
        await asyncio.gather(*songs)
        return [self.failed[model.name] for model in loaded if model.name in self.failed]

    async def sing(self, model: Model) -> Problem | None:
        """What is wrong with the model's answer to its canary; remembered until it is well."""
        problem = await self._song(model)
        if problem is not None:
            self.doubt(model.name)
        self._judge(model.name, problem)
        return problem

    def _judge(self, name: str, problem: Problem | None) -> None:
        changes = name not in self.failed if problem else name in self.doubted
        if problem is not None:
            self.failed[name] = problem
        else:
            self.failed.pop(name, None)
            self.doubted.discard(name)
        if changes:
            self._changed()

    async def _song(self, model: Model) -> Problem | None:
        image = canary(model.rule.height, model.rule.width)
        try:
            answers, _ = await self.models.triton.infer(model.name, [image], CANARY_TIMEOUT)
            check_distribution(model.name, answers[0])
        except DeadlinePassed:
            # It may only stand in the queue behind others that do get their answers.
            if self.models.works(model.name, SILENT_CALLS * self._usual.get(model.name, 0.0)):
                return None
            return ModelNotReady(
                f"model {model.name!r} does not answer its canary within {CANARY_TIMEOUT:g} s"
            )
        except Problem as problem:
            return problem
        worst = float(np.abs(answers[0] - model.expected).max())
        if worst > CANARY_TOLERANCE:
            return ContractBroken(
                f"model {model.name!r} answers its canary {worst:.2g} away from what it answered "
                "when it was loaded"
            )
        return None
