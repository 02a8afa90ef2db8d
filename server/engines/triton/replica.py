"""One of the Tritons behind the gateway: its connection, its models, the calls under way to it.

In: an address. Out: answers, and whether each of its models answers a probe as it did when it was
loaded. After a failed call the model is probed until it is healthy again. A call to a dead or
frozen Triton fails over: the caller stops waiting and asks another Triton, and the call itself runs
to its end.
"""

import asyncio
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from contracts.resizing import Pixels
from server.engines.model import Model, Probabilities
from server.engines.probe import PROBE_TIMEOUT, problem_of
from server.engines.triton.catalogue import Catalogue
from server.engines.triton.circuit_breaker import CircuitBreaker, State
from server.engines.triton.client import Client
from server.problems import Problem, TritonAway

PROBE_PAUSE = 0.5  # seconds between the probes of a model whose circuit breaker is not closed
# A model that has not answered for up to this many times its usual call is slow, not stuck.
SILENT_CALLS = 3


class FailedOver(TritonAway):
    """The call was given back to its caller, since this Triton will not answer it."""


class Replica:
    """Made inside the running event loop, in which it watches its Triton until `close`."""

    def __init__(
        self,
        client: Client,
        average_batch: dict[str, float],
        changed: Callable[[], None],
        *,
        starts_here: bool = False,
    ) -> None:
        """`changed` is called when the models that this Triton serves may have changed;
        `starts_here` as for `Catalogue`."""
        self.url = client.url
        self.catalogue = Catalogue(client, average_batch, changed, starts_here=starts_here)
        self.pending = 0  # calls under way
        # Images so far. The start is random and so differs between gateways: with the same start
        # all gateways would always send to the same Triton at the same time.
        self.assigned = secrets.randbelow(2**32) / 2**32
        self._breakers: dict[str, CircuitBreaker] = defaultdict(CircuitBreaker)
        self._changed = changed
        self._usual: dict[str, float] = {}  # seconds per call of each model, smoothed
        self._waiting: dict[asyncio.Timeout, str] = {}  # calls that can fail over, by model
        self._watch = asyncio.create_task(self.catalogue.watch())
        self._recoveries: dict[str, asyncio.Task[None]] = {}  # by model
        self._closed = False

    async def close(self, patience: float) -> None:
        """Let the calls under way end, for at most `patience` seconds, then disconnect."""
        self._closed = True
        tasks = [self._watch, *self._recoveries.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.catalogue.client.close(patience)

    @property
    def broken(self) -> set[str]:
        """Models to be avoided as long as another Triton has them: their breaker is not closed."""
        return {name for name, each in self._breakers.items() if each.state is not State.CLOSED}

    def state(self, name: str) -> State:
        """The state of the model's circuit breaker."""
        return self._breakers[name].state

    async def infer(
        self, name: str, images: Sequence[Pixels], seconds: float, extras: Sequence[str] = ()
    ) -> tuple[Probabilities, str]:
        """As `TritonClient.infer`; raises `FailedOver` when `fail_over` is called meanwhile."""
        began = time.monotonic()
        self.pending += 1
        patience = asyncio.timeout(None)
        try:
            async with patience:
                self._waiting[patience] = name
                answer = await self.catalogue.client.infer(name, images, seconds, extras)
        except TimeoutError:
            raise FailedOver(f"Triton at {self.url} answers no more") from None
        finally:
            self._waiting.pop(patience, None)
            self.pending -= 1
        self.catalogue.answered[name] = now = time.monotonic()
        self._usual[name] = 0.9 * self._usual.get(name, now - began) + 0.1 * (now - began)
        return answer

    def fail_over(self, name: str) -> None:
        """Let the callers that wait for this model stop waiting and ask another Triton."""
        for patience, asked in list(self._waiting.items()):
            if asked == name:
                del self._waiting[patience]
                patience.reschedule(asyncio.get_running_loop().time())

    def call_failed(self, name: str) -> None:
        """Note a lost call: check if Triton is there, and probe the model until it is healthy."""
        self.catalogue.poll_now()
        if not self._closed and self._breakers[name].call_failed():
            self._changed()
            self._recover(name)

    def _recover(self, name: str) -> None:
        running = self._recoveries.get(name)
        if running is None or running.done():
            self._recoveries[name] = asyncio.create_task(self._probe_until_healthy(name))

    async def _probe_until_healthy(self, name: str) -> None:
        while self.state(name) is not State.CLOSED:
            model = self.catalogue.entries.get(name)
            # A model that is not loaded is not used, and must answer a probe when it is loaded
            # again.
            if self.catalogue.away is None and isinstance(model, Model) and await self.probe(model):
                await asyncio.sleep(PROBE_PAUSE)
            elif self._breakers[name].probe_passed():
                self._changed()

    async def probe_all(self, spared: str | None = None) -> list[Problem]:
        """The problems of its models; models whose breaker is open are being probed already."""
        loaded = [model for model in self.catalogue.loaded() if model.name != spared]
        await asyncio.gather(
            *(self.probe(model) for model in loaded if self.state(model.name) is not State.OPEN)
        )
        problems = [self._breakers[model.name].problem for model in loaded]
        return [problem for problem in problems if problem is not None]

    async def probe(self, model: Model) -> Problem | None:
        """What is wrong with the model's answer to its probe, which sets its circuit breaker."""
        problem = await self._answer_to_probe(model)
        breaker = self._breakers[model.name]
        if problem is None:
            if breaker.probe_passed():
                self._changed()
            return None
        self.call_failed(model.name)
        if breaker.probe_failed(problem):
            self._changed()
        return problem

    async def _answer_to_probe(self, model: Model) -> Problem | None:
        def answers_others() -> bool:
            usual = self._usual.get(model.name, 0.0)
            return self.catalogue.answered_recently(model.name, SILENT_CALLS * usual)

        return await problem_of(model, self.catalogue.client.infer, answers_others, PROBE_TIMEOUT)
