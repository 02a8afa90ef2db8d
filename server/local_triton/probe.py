"""The probe of a Triton on this machine: a real inference on each model, again and again.

In: the port of its HTTP on loopback, the key that opens it, the model repository. Out: for each
model whether it answers the probe's image as it should, and since when a question is unanswered.
Triton's own readiness is not trusted: 2.51 calls itself ready while a model's process is dead. No
question is ever cancelled, since Triton before 24.12 can crash then: the next question follows when
the last one has been answered. Imports only the standard library: the containers' launchers use
this module as well.
"""

import asyncio
import contextlib
import json
import math
import struct
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from contracts.probing import PROCESS_LOST, Golden, fault_of, probe_pixels, read_golden
from contracts.repository import INPUT, PROBABILITIES
from server.local_triton.command_line import Key
from server.local_triton.launch import LocalTritonError
from server.local_triton.loopback import ExchangeError, exchange

INTERVAL_S = 2.0  # between an answer and the next question
LOAD_S = 600.0
FAILURES = (OSError, ExchangeError, ValueError, LookupError, TypeError, struct.error)


@dataclass
class Question:
    """Something that is asked again and again."""

    silent_since: float | None = None  # asked, and unanswered since; time.monotonic()
    problem: str | None = "has not answered its probe yet"  # of the last answer; None: it was good
    executions: int = 0  # batches that the model has run; 0 for Triton itself


@dataclass
class ModelProbe(Question):
    """The probe of one model that Triton has loaded."""

    golden: Golden | None = None
    shape: tuple[int, ...] = ()  # of one image


class Prober:
    """Probes one Triton as long as `run` does."""

    def __init__(self, port: int, key: Key, repository: Path) -> None:
        self._port = port
        self._headers = key.http_headers
        self._repository = repository
        self.server = Question()  # whether Triton's HTTP answers at all
        self.models: dict[str, ModelProbe] = {}  # those that Triton has loaded
        self.not_loaded: dict[str, str] = {}  # the others that it lists, and its reasons
        self._listed: set[str] = set()  # at the start; a later one is not loaded, which is no fault
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def started(self) -> None:
        """Wait until Triton has loaded all models that it can: then it opens its ports."""
        while True:
            try:
                await self._list_models()
            except FAILURES:
                await asyncio.sleep(0.1)
            else:
                return

    async def run(self) -> None:
        """Probe until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._again_and_again(self.server, self._live))
                while True:
                    with contextlib.suppress(*FAILURES):
                        await self._list_models()
                    for name in self._tasks.keys() - self.models.keys():
                        self._tasks.pop(name).cancel()
                    for name in self.models.keys() - self._tasks.keys():
                        self._tasks[name] = group.create_task(self._probe_on(name))
                    with contextlib.suppress(*FAILURES):
                        await self._count_executions()
                    await asyncio.sleep(INTERVAL_S)
        finally:
            self._tasks.clear()

    async def probe(self, model: str) -> str | None:
        """What is wrong with the model's answer to one more probe; None if nothing."""
        if model not in self.models:
            return "is not loaded"
        try:
            return await self._probe(model)
        except FAILURES as error:
            return f"does not answer: {error or repr(error)}"

    async def load(self, model: str) -> None:
        """Let Triton load a model again. Raises LocalTritonError with Triton's reason."""
        try:
            async with asyncio.timeout(LOAD_S):
                path = f"/v2/repository/models/{quote(model)}/load"
                (await self._ask("POST", path, b"{}")).good()
        except (*FAILURES, TimeoutError) as error:
            raise LocalTritonError(f"Triton does not load it: {error}") from error

    def problems(self) -> dict[str, str]:
        """What is wrong with each model that is not as it should be."""
        return dict(self.not_loaded) | {
            name: probe.problem for name, probe in self.models.items() if probe.problem is not None
        }

    async def _again_and_again(
        self, question: Question, ask: Callable[[], Coroutine[Any, Any, str | None]]
    ) -> None:
        while True:
            if question.silent_since is None:
                question.silent_since = time.monotonic()
            question.problem = problem = await ask()
            if problem is None or not any(words in problem for words in PROCESS_LOST):
                question.silent_since = None
            await asyncio.sleep(INTERVAL_S)

    async def _probe_on(self, name: str) -> None:
        """Probe a model, but not while it answers other requests: they prove as much."""
        probe, seen = self.models[name], 0

        async def ask() -> str | None:
            nonlocal seen
            busy = probe.problem is None and probe.executions > seen
            problem = None if busy else await self.probe(name)
            if not busy and problem is None:
                probe.executions += 1  # counted here, so as not to count as another's
            seen = probe.executions
            return problem

        await self._again_and_again(probe, ask)

    async def _live(self) -> str | None:
        try:
            (await self._ask("GET", "/v2/health/live")).good()
        except FAILURES as error:
            return f"does not answer: {error or repr(error)}"
        return None

    async def _list_models(self) -> None:
        listed = (await self._ask("POST", "/v2/repository/index", b"{}")).json()
        ready = {str(model["name"]) for model in listed if model.get("state") == "READY"}
        if not self._listed:
            self._listed = {str(model["name"]) for model in listed}
        for name in self.models.keys() - ready:
            del self.models[name]
        for name in ready - self.models.keys():
            self.models[name] = ModelProbe()
        self.not_loaded = {
            str(model["name"]): f"is not loaded: {_reason(model.get('reason'))}"
            for model in listed
            if model["name"] not in ready and model["name"] in self._listed
        }

    async def _count_executions(self) -> None:
        stats = (await self._ask("GET", "/v2/models/stats")).json()["model_stats"]
        for name, probe in self.models.items():
            probe.executions = sum(int(v["execution_count"]) for v in stats if v["name"] == name)

    async def _probe(self, name: str) -> str | None:
        """One inference on the model; what is wrong with its answer."""
        probe = self.models[name]
        if not probe.shape:
            config = (await self._ask("GET", f"/v2/models/{quote(name)}/config")).json()
            (image,) = config["input"]
            probe.golden = read_golden(self._repository / name)
            probe.shape = tuple(int(size) for size in image["dims"])
        height, width, _channels = probe.shape
        return fault_of(await self._infer(name, height, width), probe.golden)

    async def _infer(self, name: str, height: int, width: int) -> tuple[float, ...]:
        """The model's probabilities [K] of the probe's image; tensors travel as bytes."""
        pixels = probe_pixels(height, width)
        size = {"binary_data_size": len(pixels)}
        shape = [1, height, width, 3]
        image = {"name": INPUT, "datatype": "UINT8", "shape": shape, "parameters": size}
        wanted = {"name": PROBABILITIES, "parameters": {"binary_data": True}}
        head = json.dumps({"inputs": [image], "outputs": [wanted]}).encode()
        length = "Inference-Header-Content-Length"
        path = f"/v2/models/{quote(name)}/infer"
        types = {length: str(len(head)), "Content-Type": "application/octet-stream"}
        answer = await exchange(self._port, "POST", path, head + pixels, self._headers | types)
        answer.good()
        raw = answer.body[int(answer.headers[length]) :]
        probabilities = struct.unpack(f"<{len(raw) // 4}f", raw)
        if not probabilities or not all(map(math.isfinite, probabilities)):
            raise ExchangeError("it answers probabilities that are no numbers")
        return probabilities

    async def _ask(self, method: str, path: str, body: bytes = b"") -> Any:  # noqa: ANN401 - JSON
        return await exchange(self._port, method, path, body, self._headers)


def _reason(text: object) -> str:
    """Triton's reason, without a backend's stack."""
    return str(text or "unknown").partition("\n\nAt:\n")[0]
