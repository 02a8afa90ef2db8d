"""Whether the gateway may be sent requests: a real inference on every model, on demand.

In: the models that have been loaded. Out: the default model, or the `Problem` that a request would
get. Triton's own health says ready while a model's backend is dead, so it is not asked.
"""

import asyncio
import time

from server.engines.triton.balancer import Replicas
from server.engines.triton.model import Model
from server.problems import ModelNotReady, Problem, UnknownModel

# A dead backend must be told within 5 s: by a verdict that is not older than this, after a canary
# that took no longer than `CANARY_TIMEOUT`.
VERDICT_SECONDS = 1.0


class Readiness:
    """Lets the models answer their canaries, at most once a second however many ask."""

    def __init__(self, models: Replicas) -> None:
        self._models = models
        self._lock = asyncio.Lock()
        self._judged = float("-inf")
        self._failures: list[Problem] = []
        self._checks: set[asyncio.Task[list[Problem]]] = set()

    async def check(self) -> Model:
        """The default model, after every model gave the answer that it gave when loaded.

        One Triton that answers for all of its models is enough. Raises the `Problem` that a request
        to the default model, or to the one that fails, would get; if there is no default model,
        `ModelNotReady`, since it may still come.
        """
        try:
            model = self._models.get(self._models.default)
        except UnknownModel as missing:
            raise ModelNotReady(f"the default model is missing: {missing.detail}") from None
        async with self._lock:
            if time.monotonic() - self._judged > VERDICT_SECONDS:
                self._failures = await self._failures_of_the_best()
                self._judged = time.monotonic()
            for problem in self._failures:
                raise type(problem)(problem.detail)
        return model

    async def _failures_of_the_best(self) -> list[Problem]:
        """None as soon as one Triton is well; the others are looked at all the same."""
        fewest: list[Problem] = []
        checks = [asyncio.create_task(each.check()) for each in self._models.serving_default()]
        for check in checks:
            self._checks.add(check)
            check.add_done_callback(self._checks.discard)
        for done in asyncio.as_completed(checks):
            failures = await done
            if not failures:
                return []
            if not fewest or len(failures) < len(fewest):
                fewest = failures
        return fewest
