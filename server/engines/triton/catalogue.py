"""The models that one Triton serves, kept up to date in the background.

In: Triton, asked once a second. Out: each of its models, as a `Model` or with the `Problem` that
says why it cannot be served; or why Triton is away. A Triton that starts later, or again, is found
without a restart of the gateway.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable

from contracts.labels import clean_served
from server.engines.contract import (
    extras_of,
    instances_of,
    parameters_of,
    rule_of,
    shape_of,
)
from server.engines.model import (
    Entry,
    Model,
    Unusable,
    check_distribution,
    probe_image,
)
from server.engines.triton.client import Client
from server.observability import metrics
from server.problems import (
    ContractBroken,
    DeadlinePassed,
    ModelNotReady,
    Problem,
    TritonAway,
)

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
AWAY_POLL_SECONDS = 0.2
# A question about a model is answered in milliseconds; a first inference may take much longer.
# The limit leaves time for the pause before a question: a dead Triton must be detected within 5 s.
QUESTION_TIMEOUT = 3.0
FIRST_INFERENCE_TIMEOUT = 120.0
# A Triton that has not answered yet may be starting for this long.
START_SECONDS = 5.0
# A model that has answered other calls within this time does not hang.
RECENT_SECONDS = 1.0

Index = frozenset[tuple[str, str, str, str]]

# Of a Triton that this server starts itself, until it has answered once.
STARTING = "Triton is still starting; the models can be asked when it has loaded them"

# Words of this project's backend about a graph whose digest is not that of its config.pbtxt.
CHANGED = "was changed after its export"


class Catalogue:
    """The models that one Triton serves now. `watch` runs as long as the catalogue is used."""

    def __init__(
        self,
        client: Client,
        average_batch: dict[str, float],
        changed: Callable[[], None],
        *,
        starts_here: bool = False,
    ) -> None:
        """`average_batch` gets the images per execution; `changed` is called at every change.

        `starts_here` says that this server starts that Triton itself.
        """
        self.client = client
        self.average_batch = average_batch
        self.answered: dict[str, float] = {}  # when each model answered last, time.monotonic()
        self.entries: dict[str, Entry] = {}
        self._starting = starts_here
        self.away: TritonAway | None = TritonAway(
            STARTING if starts_here else f"Triton at {client.url} has not answered yet"
        )
        self._changed = changed
        self._index: Index = frozenset()
        self._counts: dict[str, tuple[int, int]] = {}
        self._poll_at_once = asyncio.Event()
        # The time at which the absence of a Triton that never answered is logged, once.
        self._patience_ends = time.monotonic() + START_SECONDS

    def poll_now(self) -> None:
        """Check at once whether Triton is still there, since a call failed."""
        self._poll_at_once.set()

    def loaded(self) -> list[Model]:
        """The models that can be served."""
        return [entry for entry in self.entries.values() if isinstance(entry, Model)]

    def answered_recently(self, name: str, patience: float = 0.0) -> bool:
        """Whether the model has answered a request in the last `RECENT_SECONDS` or `patience`."""
        silent = time.monotonic() - self.answered.get(name, float("-inf"))
        return silent < max(RECENT_SECONDS, patience)

    async def watch(self) -> None:
        """Keep the list up to date, until it is cancelled."""
        while True:
            self._poll_at_once.clear()
            try:
                await self._poll()
            except (TritonAway, ModelNotReady, DeadlinePassed, ContractBroken) as problem:
                # A Triton that answers inferences meanwhile is only busy.
                if not isinstance(problem, DeadlinePassed):
                    self._mark_away(TritonAway(problem.detail))
                elif not any(map(self.answered_recently, self.answered)):
                    self.client.reconnect()
                    self._mark_away(TritonAway(problem.detail))
            except Exception as error:
                # The watch must go on whatever a Triton answers; the log has the cause.
                logger.exception("the models of Triton at %s cannot be read", self.client.url)
                self._mark_away(TritonAway(f"Triton's answer cannot be read: {error}"))
            metrics.tasks.set(len(asyncio.all_tasks()))
            pause = POLL_SECONDS if self.away is None else AWAY_POLL_SECONDS
            try:
                async with asyncio.timeout(pause):
                    await self._poll_at_once.wait()
                # One poll for a burst of failed calls.
                await asyncio.sleep(AWAY_POLL_SECONDS / 4)
            except TimeoutError:
                pass

    def _mark_away(self, problem: TritonAway) -> None:
        if self._starting:
            return  # `away` says so already; its supervisor logs why a start fails
        if self.away is None:
            logger.warning("Triton at %s is away: %s", self.client.url, problem.detail)
        elif time.monotonic() > self._patience_ends:
            self._patience_ends = math.inf
            logger.warning(
                "%s; it is looked for again and again (--with-triton starts one here)",
                problem.detail,
            )
        changes = self.away is None or self.away.detail != problem.detail
        self.away = problem
        if changes:
            self._changed()

    async def _poll(self) -> None:
        found = await self.client.index(QUESTION_TIMEOUT)
        index = frozenset((m.name, m.version, m.state, m.reason) for m in found)
        if self.away is not None or index != self._index:
            entries = {name: await self._load(name, index) for name in {m.name for m in found}}
            self.entries, self._index = entries, index
            self.away, self._starting = None, False
            self._patience_ends = math.inf
            self._changed()
            for name in sorted(entries):
                self._log(entries[name])
            for m in found:
                # Triton's reason can hold a backend's stack and paths of the server: only the log
                # gets it.
                if m.state != "READY" and m.reason:
                    logger.warning("Triton says of model %s: %s", m.name, m.reason)
        for name, entry in self.entries.items():
            if isinstance(entry, Unusable) and isinstance(entry.problem, ModelNotReady):
                self.entries[name] = again = await self._load(name, index)
                if isinstance(again, Model):
                    self._changed()
                    self._log(again)
        await self._count_batches()

    async def _load(self, name: str, index: Index) -> Entry:
        # Of several versions Triton serves the latest that is ready.
        ready = [version for n, version, state, _ in index if (n, state) == (name, "READY")]
        changed = any(n == name and CHANGED in reason for n, _, _, reason in index)
        if not ready and changed:
            return Unusable(
                name,
                "",
                ModelNotReady(
                    f"model {name!r} was changed after its export, and is not served: export it "
                    "again, or start Triton with MIXER_ALLOW_CHANGED_MODELS=1"
                ),
            )
        if not ready:
            return Unusable(
                name,
                "",
                ModelNotReady(
                    f"Triton has not loaded model {name!r}: a model that was added needs a restart "
                    "of Triton, one that failed has its reason in the gateway's log"
                ),
            )
        version = max(ready, key=lambda text: (len(text), text))
        try:
            return await self._read(name)
        except DeadlinePassed as problem:
            return Unusable(name, version, ModelNotReady(problem.detail))
        except (ContractBroken, ModelNotReady) as problem:
            return Unusable(name, version, problem)

    async def _read(self, name: str) -> Model:
        """Read all facts about a model that Triton calls ready, and let the model answer once."""
        metadata = await self.client.metadata(name, QUESTION_TIMEOUT)
        config = await self.client.config(name, QUESTION_TIMEOUT)
        height, width, classes = shape_of(name, metadata)
        rule = rule_of(name, height, width, config)
        image = probe_image(height, width)
        answers, version = await self.client.infer(name, [image], FIRST_INFERENCE_TIMEOUT)
        parameters = parameters_of(config)
        check_distribution(name, answers[0], parameters)
        if len(answers[0]) != classes:
            raise ContractBroken(
                f"model {name!r} declares {classes} classes and answers {len(answers[0])}"
            )
        labels = clean_served(
            await self.client.labels(name, image, classes, FIRST_INFERENCE_TIMEOUT)
        )
        return Model(
            name=name,
            version=version,
            rule=rule,
            classes=classes,
            max_batch_size=config.max_batch_size,
            instances=instances_of(config),
            parameters=parameters,
            labels=[label or str(i) for i, label in enumerate(labels)],
            expected=answers[0],
            extras=extras_of(metadata, classes),
        )

    async def _count_batches(self) -> None:
        """Average batch of each model up to the last check that found new work of the model."""
        try:
            counts = await self.client.statistics(QUESTION_TIMEOUT)
        except Problem as problem:
            # An operator may have closed Triton's statistics; nothing else needs them.
            logger.debug("no statistics from Triton: %s", problem.detail)
            return
        for name, (inferences, executions) in counts.items():
            past_inferences, past_executions = self._counts.get(name, (0, 0))
            if executions > past_executions:
                self.average_batch[name] = (inferences - past_inferences) / (
                    executions - past_executions
                )
            self._counts[name] = (inferences, executions)

    def _log(self, entry: Entry) -> None:
        name, version, url = entry.name, entry.version, self.client.url
        if isinstance(entry, Unusable):
            logger.warning("model %s on %s is unavailable: %s", name, url, entry.problem.detail)
        else:
            logger.info("model %s version %s is ready on %s", name, version, url)
