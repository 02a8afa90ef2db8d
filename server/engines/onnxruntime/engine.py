"""The engine without Triton: ONNX Runtime in the gateway's process, on a Triton model repository.

In: the repository, checked once a second. Out: its models, and answers that are bit for bit those
of the local Triton, which opens its sessions in the same way. A model that is added, changed or
removed is loaded, loaded again or released without a restart; if a changed model cannot be loaded,
the gateway goes on with the model as it was. Batches are made by the gateway's batcher
(server/serving/batching.py), so a queue delay in a config has no effect. There is one process and
no GPU.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

from contracts.resizing import Pixels
from server.engines.engine import Engine
from server.engines.model import Entry, Model, Probabilities, Unusable
from server.engines.onnxruntime.folders import Fingerprint, fingerprints
from server.engines.onnxruntime.loading import ChangedModelError, Loaded, LoadError, load
from server.engines.probe import problem_of
from server.observability import metrics
from server.problems import (
    ContractBroken,
    DeadlinePassed,
    ModelNotReady,
    Problem,
    TritonAway,
    UnknownModel,
)

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
# A model that has not answered for up to this many times its usual call is slow, not stuck.
SILENT_CALLS = 3


@dataclass
class Counts:
    """Counts of a model's work, since it was first loaded and since the last check."""

    images: int = 0
    executions: int = 0
    answered: float = float("-inf")  # when it answered last, time.monotonic()
    usual: float = 0.0  # seconds of a call, smoothed


class OnnxRuntime(Engine):
    """Made inside the running event loop; `watch` runs as long as the gateway does."""

    def __init__(self, repository: Path, default: str) -> None:
        """Nothing is loaded before `watch` runs."""
        self.default = default
        self.average_batch: dict[str, float] = {}
        self._repository = repository
        self._entries: dict[str, Entry] | None = None
        self._loaded: dict[str, Loaded] = {}
        self._seen: dict[str, Fingerprint] = {}  # of each model that was loaded or could not be
        self._counts: dict[str, Counts] = {}
        self._calls: set[Future[Probabilities]] = set()
        self._loader = ThreadPoolExecutor(1, "load")

    def entry(self, name: str) -> Entry:
        """As `Engine.entry`; `TritonAway` until the models have been loaded for the first time."""
        entries = self._known()
        if name not in entries:
            names = ", ".join(sorted(entries)) or "none"
            raise UnknownModel(f"there is no model {name!r}; there are: {names}")
        return entries[name]

    def entries(self) -> list[Entry]:
        """As `Engine.entries`."""
        entries = self._known()
        return [entries[name] for name in sorted(entries)]

    def _known(self) -> dict[str, Entry]:
        if self._entries is None:
            raise TritonAway("the models are being loaded")
        return self._entries

    def instances(self, model: Model) -> int:
        """As `Engine.instances`."""
        return model.instances

    def slots(self, model: Model) -> int:
        """As `Engine.slots`: one call waits until an instance is done."""
        return model.instances + 1

    async def infer(
        self, model: Model, images: Sequence[Pixels], seconds: float, extras: Sequence[str] = ()
    ) -> tuple[Probabilities, str]:
        """As `Engine.infer`. A call that has been given up is still computed."""
        loaded = self._loaded.get(model.name)
        if loaded is None or not loaded.model.interchangeable(model):
            raise ModelNotReady(f"model {model.name!r} was exchanged meanwhile; try again")
        return await self._run(loaded, images, seconds, extras)

    async def _run(
        self, loaded: Loaded, images: Sequence[Pixels], seconds: float, extras: Sequence[str] = ()
    ) -> tuple[Probabilities, str]:
        began = time.monotonic()
        try:
            call = loaded.threads.submit(loaded.run, images, extras)
        except RuntimeError:  # the model's threads were ended at this moment
            raise ModelNotReady(f"model {loaded.model.name!r} was exchanged meanwhile") from None
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        try:
            async with asyncio.timeout(seconds):
                answers = await asyncio.wrap_future(call)
        except TimeoutError:
            raise DeadlinePassed(f"no answer within {seconds:g} s") from None
        counts = self._counts[loaded.model.name]
        counts.answered = now = time.monotonic()
        counts.usual = 0.9 * (counts.usual or now - began) + 0.1 * (now - began)
        counts.images += len(images)
        counts.executions += 1
        return answers, loaded.model.version

    async def probe(self, spared: str | None = None) -> list[Problem]:
        """As `Engine.probe`."""
        loaded = [each for name, each in self._loaded.items() if name != spared]
        found = await asyncio.gather(*map(self._probe, loaded))
        return [problem for problem in found if problem is not None]

    async def _probe(self, loaded: Loaded) -> Problem | None:
        async def infer(
            _name: str, images: Sequence[Pixels], seconds: float
        ) -> tuple[Probabilities, str]:
            return await self._run(loaded, images, seconds)

        def answers_others() -> bool:
            counts = self._counts[loaded.model.name]
            return time.monotonic() - counts.answered < max(1.0, SILENT_CALLS * counts.usual)

        return await problem_of(loaded.model, infer, answers_others)

    async def watch(self) -> None:
        """As `Engine.watch`: load what is there, and what changes, until it is cancelled."""
        logger.info(
            "ONNX Runtime %s computes in this process, without Triton", onnxruntime.__version__
        )
        found: dict[str, Fingerprint] = {}
        while True:
            try:
                before, found = found, await asyncio.to_thread(fingerprints, self._repository)
            except OSError as error:
                # Loaded models are still served, as by a Triton.
                logger.warning("the repository %s cannot be read: %s", self._repository, error)
            else:
                await self._update(found if self._entries is None else before, found)
            metrics.tasks.set(len(asyncio.all_tasks()))
            self._count_batches()
            await asyncio.sleep(POLL_SECONDS)

    async def _update(self, before: dict[str, Fingerprint], found: dict[str, Fingerprint]) -> None:
        """Load what has changed since it was loaded, once it has stopped changing."""
        entries = dict(self._entries or {})
        for name, fingerprint in found.items():
            settled = before.get(name) == fingerprint
            if settled and self._seen.get(name) != fingerprint:
                entries[name] = await self._load(name)
                self._seen[name] = fingerprint
        for name in entries.keys() - found.keys() - before.keys():
            logger.info("model %s has left", name)
            del entries[name], self._seen[name]
            self._let_go(self._loaded.pop(name, None))
        self._warn_of_no_default(entries)
        self._entries = entries
        metrics.replicas.set(1)

    async def _load(self, name: str) -> Entry:
        """The model as it is in the repository now; the model before if that cannot be loaded."""
        loop = asyncio.get_running_loop()
        began = time.monotonic()
        previous = self._loaded.get(name)
        try:
            loaded = await loop.run_in_executor(self._loader, load, self._repository / name)
        except Exception as error:
            goes_on = "; it goes on as it was" if previous else ""
            logger.warning(
                "model %s cannot be loaded: %s%s",
                name,
                error,
                goes_on,
                # Whatever is wrong with this model, the other models are served.
                exc_info=not isinstance(error, (LoadError, ContractBroken)),
            )
            if previous is not None:
                return previous.model
            return Unusable(name, "", _problem(name, error))
        self._counts.setdefault(name, Counts())
        self._loaded[name] = loaded
        self._let_go(previous)
        took = time.monotonic() - began
        logger.info("model %s version %s is ready, after %.1f s", name, loaded.model.version, took)
        return loaded.model

    def _let_go(self, loaded: Loaded | None) -> None:
        if loaded is not None:
            loaded.threads.shutdown(wait=False)  # calls under way are still answered

    def _warn_of_no_default(self, entries: dict[str, Entry]) -> None:
        if self.default not in entries and (self._entries is None or self.default in self._entries):
            logger.warning(
                "there is no default model %r, so this gateway is not ready; there are: %s; "
                "--default-model chooses one",
                self.default,
                ", ".join(sorted(entries)) or "none",
            )

    def _count_batches(self) -> None:
        """Average batch of each model up to the last check that found new work of the model."""
        for name, counts in self._counts.items():
            if counts.executions:
                self.average_batch[name] = counts.images / counts.executions
                counts.images = counts.executions = 0

    async def close(self, patience: float) -> None:
        """As `Engine.close`."""
        self._loader.shutdown(wait=False, cancel_futures=True)
        calls = [asyncio.wrap_future(call) for call in self._calls]
        if calls:
            await asyncio.wait(calls, timeout=patience)
        for loaded in self._loaded.values():
            loaded.threads.shutdown(wait=False, cancel_futures=True)


def _problem(name: str, error: Exception) -> Problem:
    """What clients read if a model could not be loaded; no folder of the server is named."""
    if isinstance(error, ContractBroken):
        return error
    if isinstance(error, ChangedModelError):
        return ModelNotReady(
            f"model {name!r} was changed after its export, and is not served: export it again, or "
            "start the gateway with --allow-changed-models"
        )
    return ModelNotReady(f"model {name!r} could not be loaded; the gateway's log says why")
