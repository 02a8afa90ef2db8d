"""An engine, and a connection to Triton, that compute nothing: for unit tests in milliseconds.

The real Triton is what the other tests use. These stand in only where a test is about the order of
events (who waits, who goes first, who is asked again), which a real one would not repeat.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from tritonclient.grpc import model_config_pb2, service_pb2

from contracts.resizing import Pixels, ResizeRule
from server.engines.engine import Engine
from server.engines.model import Entry, Model, Probabilities
from server.problems import DeadlinePassed, Problem, UnknownModel

SIZE, CLASSES = 8, 4
EVEN = np.full(CLASSES, 1 / CLASSES, np.float32)


def model(name: str = "m", *, max_batch_size: int = 8, instances: int = 1, **more: str) -> Model:
    """A model of 8 × 8 pixels and 4 classes; `more` are its parameters."""
    return Model(
        name=name,
        version="1",
        rule=ResizeRule(SIZE, SIZE, more.get("resize", "squash")),
        classes=CLASSES,
        max_batch_size=max_batch_size,
        instances=instances,
        parameters=dict(more),
        labels=[str(number) for number in range(CLASSES)],
        expected=EVEN,
    )


@dataclass
class Call:
    """One call to the fake engine that waits for the test to answer it."""

    model: Model
    images: int
    answer: "asyncio.Future[Probabilities]"
    extras: tuple[str, ...] = ()

    def finish(self) -> None:
        """Each extra output has the first letter of its name as its numbers."""
        widths = [(ord(name[0]), self.model.extras[name]) for name in self.extras]
        rows = [EVEN, *(np.full(width, letter, np.float32) for letter, width in widths)]
        self.answer.set_result(np.tile(np.concatenate(rows), (self.images, 1)))


class FakeEngine(Engine):
    """An engine with the given models. Answers at once, or when the test says so (`hold`)."""

    def __init__(self, *models: Model, hold: bool = False) -> None:
        self.models = {each.name: each for each in models}
        self.default = next(iter(self.models), "none")
        self.average_batch: Mapping[str, float] = {}
        self.calls: list[Call] = []
        self.problems: list[Problem] = []  # what a probe finds
        self.probes = 0
        self.spared: str | None = None  # by the last probe
        self._hold = hold

    def entry(self, name: str) -> Entry:
        if name not in self.models:
            raise UnknownModel(f"there is no model {name!r}")
        return self.models[name]

    def entries(self) -> list[Entry]:
        return list(self.models.values())

    def instances(self, model: Model) -> int:
        return model.instances

    def slots(self, model: Model) -> int:
        return model.instances + 1

    async def infer(
        self, model: Model, images: Sequence[Pixels], seconds: float, extras: Sequence[str] = ()
    ) -> tuple[Probabilities, str]:
        future = asyncio.get_running_loop().create_future()
        call = Call(model, len(images), future, tuple(extras))
        self.calls.append(call)
        if not self._hold:
            call.finish()
        async with asyncio.timeout(seconds):
            return await call.answer, model.version

    async def probe(self, spared: str | None = None) -> list[Problem]:
        self.probes += 1
        self.spared = spared
        return self.problems

    async def watch(self) -> None:
        await asyncio.Event().wait()

    async def close(self, patience: float) -> None:
        """Nothing to let go of."""


@dataclass
class FakeClient:
    """A connection to a Triton of one model, as the catalogue and the replica use it.

    `failure` is raised by every call; `fails_at_call` becomes it at the next call that is counted.
    While `frozen` no call returns.
    """

    url: str
    name: str = "m"
    resize: str = "squash"
    instances: int = 1
    failure: Problem | None = None
    fails_at_call: Problem | None = None
    answer: Probabilities = field(default_factory=lambda: EVEN)
    calls: int = 0  # with black images: probes have another
    _thawed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._thawed.set()

    def freeze(self) -> None:
        self._thawed.clear()

    def thaw(self) -> None:
        self._thawed.set()

    async def _reply(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._thawed.wait()
        except TimeoutError:
            raise DeadlinePassed(f"no answer within {seconds:g} s") from None
        await asyncio.sleep(0)
        if self.failure is not None:
            raise type(self.failure)(self.failure.detail)

    def reconnect(self) -> None:
        """There is no connection."""

    async def close(self, patience: float) -> None:
        """There is no connection."""

    async def infer(
        self, model: str, images: Sequence[Pixels], seconds: float, extras: Sequence[str] = ()
    ) -> tuple[Probabilities, str]:
        assert model == self.name
        assert not extras
        if not images[0].any():
            self.calls += 1
            if self.fails_at_call is not None:
                self.failure, self.fails_at_call = self.fails_at_call, None
        await self._reply(seconds)
        return np.tile(self.answer, (len(images), 1)), "1"

    async def labels(self, _model: str, _image: Pixels, classes: int, seconds: float) -> list[str]:
        await self._reply(seconds)
        return [str(number) for number in range(classes)]

    async def index(self, seconds: float) -> list[service_pb2.RepositoryIndexResponse.ModelIndex]:
        await self._reply(seconds)
        index = service_pb2.RepositoryIndexResponse()
        index.models.add(name=self.name, version="1", state="READY")
        return list(index.models)

    async def config(self, _model: str, seconds: float) -> model_config_pb2.ModelConfig:
        await self._reply(seconds)
        config = model_config_pb2.ModelConfig(name=self.name, max_batch_size=8)
        config.instance_group.add(count=self.instances)
        config.parameters["resize"].string_value = self.resize
        return config

    async def metadata(self, _model: str, seconds: float) -> service_pb2.ModelMetadataResponse:
        await self._reply(seconds)
        metadata = service_pb2.ModelMetadataResponse(name=self.name)
        metadata.inputs.add(name="image", datatype="UINT8", shape=[-1, SIZE, SIZE, 3])
        metadata.outputs.add(name="probabilities", datatype="FP32", shape=[-1, CLASSES])
        return metadata

    async def statistics(self, seconds: float) -> dict[str, tuple[int, int]]:
        await self._reply(seconds)
        return {self.name: (6, 2)}
