"""Whether the gateway may be sent requests: an image decoded, and an inference on every model.

In: the places where images are decoded, and the models that have been loaded. Out: the default
model, or the `Problem` that a request would get. An engine's own health may say ready while a
model's backend is dead, so it is not asked.
"""

import asyncio
import time
from collections.abc import Callable

from server.engines.engine import Engine
from server.engines.model import Model
from server.problems import ModelNotReady, Problem, UnknownModel
from server.serving.decoding import Decoding

# A dead backend must be detected within 5 s: a verdict is not older than this, and its probe took
# no longer than 3 s (`PROBE_TIMEOUT` of a replica).
VERDICT_SECONDS = 1.0


class Readiness:
    """Probes decoding and the models, at most once a second however many ask."""

    def __init__(
        self, engine: Engine, decoding: Decoding, spared: Callable[[], str | None] = lambda: None
    ) -> None:
        """`spared` returns the model that the gateway does not need in order to be ready."""
        self._engine = engine
        self._decoding = decoding
        self._spared = spared
        self._lock = asyncio.Lock()
        self._judged = float("-inf")
        self._problems: list[Problem] = []

    async def check(self) -> Model:
        """The default model, after an image was decoded, and every model gave its answer again.

        Raises the `Problem` that a request to the default model, or to the one that fails, would
        get; if there is no default model, `ModelNotReady`, since it may still come.
        """
        try:
            model = self._engine.get(self._engine.default)
        except UnknownModel as missing:
            raise ModelNotReady(f"the default model is missing: {missing.detail}") from None
        async with self._lock:
            if time.monotonic() - self._judged > VERDICT_SECONDS:
                self._problems = await self._found()
                self._judged = time.monotonic()
            for problem in self._problems:
                raise type(problem)(problem.detail)
        return model

    async def _found(self) -> list[Problem]:
        """What is wrong with decoding, or else with the models; both are probed at once."""
        decoding, problems = await asyncio.gather(
            self._decoding.probe(), self._engine.probe(self._spared())
        )
        return problems if decoding is None else [decoding, *problems]
