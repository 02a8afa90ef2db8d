"""What serving asks of an inference engine: its models, inference, a probe, statistics.

In: a model and pixels. Out: probabilities. Serving imports this module and no engine; `triton/` is
the engine of production, and unit tests use an engine that computes nothing.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Protocol

from contracts.resizing import Pixels
from server.engines.model import Entry, Model, Probabilities, Unusable
from server.problems import Problem


class Engine(Protocol):
    """Made inside the running event loop; `watch` runs as long as the engine is used."""

    default: str
    """The name of the model that a request gets when it names none."""

    average_batch: Mapping[str, float]
    """Images per execution of each model, since the last look at which it had worked."""

    @abstractmethod
    def entry(self, name: str) -> Entry:
        """The model or why it cannot be served. Raises `TritonAway` or `UnknownModel`."""

    @abstractmethod
    def entries(self) -> list[Entry]:
        """All models, by name. Raises `TritonAway`."""

    def get(self, name: str) -> Model:
        """The model to serve `name` with; the same object until the model changes.

        Raises `TritonAway`, `UnknownModel`, `ModelNotReady` or `ContractBroken`.
        """
        entry = self.entry(name)
        if isinstance(entry, Unusable):
            raise type(entry.problem)(entry.problem.detail)
        return entry

    @abstractmethod
    def instances(self, model: Model) -> int:
        """How many calls give every instance of the model a batch to work on."""

    @abstractmethod
    def slots(self, model: Model) -> int:
        """The most calls to have under way: `instances`, and some that wait for a free instance."""

    @abstractmethod
    async def infer(
        self, model: Model, images: Sequence[Pixels], seconds: float, extras: Sequence[str] = ()
    ) -> tuple[Probabilities, str]:
        """Probabilities float32[N, K] of N images uint8[H, W, 3], and the version that answered.

        With `extras`, names of other outputs of the model, each row has these outputs behind its
        probabilities, side by side. Raises `TritonAway`, `ModelNotReady`, `DeadlinePassed` after
        `seconds`, or `ContractBroken`.
        """

    @abstractmethod
    async def probe(self, spared: str | None = None) -> list[Problem]:
        """The problems of the loaded models, found by a real inference on each; empty at best.

        The caller has made sure that the default model is loaded. The model `spared` may be broken.
        """

    @abstractmethod
    async def watch(self) -> None:
        """Keep the models up to date, until it is cancelled."""

    @abstractmethod
    async def close(self, patience: float) -> None:
        """Let the calls under way end, for at most `patience` seconds, then release everything."""
