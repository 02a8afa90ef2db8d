"""Whether the gateway may be sent requests: a real inference on every model, on demand.

In: the models that have been loaded. Out: the default model, or the `Problem` that a request would
get. Triton's own health says ready while a model's backend is dead, so it is not asked.
"""

import asyncio
import time

import numpy as np

from server.contract import Model, canary, check_distribution
from server.models import Models
from server.problems import ContractBroken, DeadlinePassed, ModelNotReady, Problem

# A dead backend must be told within 5 s: by a verdict that is not older than the one, after a
# canary that took no longer than the other.
VERDICT_SECONDS = 1.0
CANARY_TIMEOUT = 3.0
# A batchmate may move a probability by rounding; a broken model moves it by far more.
CANARY_TOLERANCE = 1e-2


class Readiness:
    """Lets the models answer their canaries, at most once a second however many ask."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._lock = asyncio.Lock()
        self._judged = float("-inf")
        self._failures: list[Problem] = []

    async def check(self) -> Model:
        """The default model, after every model gave the answer that it gave when loaded.

        Raises the `Problem` that a request to the default model, or to the one that fails, would
        get.
        """
        model = self._models.get(self._models.default)
        async with self._lock:
            if time.monotonic() - self._judged > VERDICT_SECONDS:
                songs = (self._sing(loaded) for loaded in self._models.loaded())
                self._failures = [problem for problem in await asyncio.gather(*songs) if problem]
                self._judged = time.monotonic()
            for problem in self._failures:
                raise type(problem)(problem.detail)
        return model

    async def _sing(self, model: Model) -> Problem | None:
        """What is wrong with the model's answer to its canary."""
        image = canary(model.rule.height, model.rule.width)
        try:
            answers, _ = await self._models.triton.infer(model.name, [image], CANARY_TIMEOUT)
            check_distribution(model.name, answers[0])
        except DeadlinePassed:
            # It may only stand in the queue behind others that do get their answers.
            if self._models.works(model.name):
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
