"""server/serving/shadow.py: which copies are taken and when, with an engine that a test holds."""

import asyncio
import itertools
import threading
import time
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY
from scipy.spatial.distance import jensenshannon

from server.engines.model import Model
from server.serving import shadow
from server.serving.classify import Classifier
from server.serving.shadow import Aim, Copy, Example, Shadow, jensen_shannon
from server.settings import read
from tests.server.engines.fakes import CLASSES, SIZE, FakeEngine, model

IMAGE = np.zeros((SIZE, SIZE, 3), np.uint8)
ROW = np.array([0.7, 0.1, 0.1, 0.1], np.float32)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 30))


def copy_of(of: Model, row: Any = ROW, image: Any = IMAGE) -> Copy:
    return Copy(image, of, row, 0.002, "request-7")


class Scene:
    """A default model `m`, a candidate `c`, and a shadow of all requests."""

    def __init__(self, *, hold: bool = False, seconds: float = 5.0, **more: Any) -> None:
        self.models = model("m"), model("c", **more)
        self.engine = FakeEngine(*self.models, hold=hold)
        self.classifier = Classifier(read([], {}), self.engine)
        self.seen: list[list[Example]] = []
        self.told = threading.Event()
        aim = Aim("c", 1.0, "m")
        self.shadow = Shadow(self.classifier, aim, seconds, self._disagreed)
        self.before = {name: self._count(name) for name in OUTCOMES}

    def _disagreed(self, examples: list[Example]) -> None:
        self.seen.append(examples)
        self.told.set()

    def _count(self, outcome: str) -> float:
        names = {"model": "m", "candidate": "c", "outcome": outcome}
        return REGISTRY.get_sample_value("mixer_shadow_copies_total", names) or 0.0

    def counts(self) -> dict[str, int]:
        """What became of the copies of this test."""
        found = {name: int(self._count(name) - self.before[name]) for name in OUTCOMES}
        return {name: count for name, count in found.items() if count}

    async def until(self, **counts: int) -> None:
        while self.counts() != counts:  # noqa: ASYNC110 - metrics tell nobody
            await asyncio.sleep(0.005)


OUTCOMES = ("compared", "failed", "unfit", "full", "busy", "paused")


def test_a_copy_is_compared_and_a_disagreement_is_an_example() -> None:
    async def test() -> None:
        scene = Scene()
        task = asyncio.create_task(scene.shadow.run())
        scene.shadow.offer(copy_of(scene.models[0]))
        # The first of equals is class 0, for both.
        await scene.until(compared=1)
        assert not scene.shadow.examples
        scene.shadow.offer(copy_of(scene.models[0], ROW[::-1].copy()))
        await scene.until(compared=2)
        await asyncio.to_thread(scene.told.wait, 10)
        (example,) = scene.seen[0]
        assert example.request_id == "request-7"
        assert (example.served.label, example.shadow.label) == ("3", "0")
        assert example.served.probability == pytest.approx(0.7)
        even = np.full(CLASSES, 0.25)
        assert example.divergence == pytest.approx(jensenshannon(ROW, even, 2) ** 2, abs=1e-6)
        assert [call.model.name for call in scene.engine.calls] == ["c", "c"]
        task.cancel()

    run(test())


@pytest.mark.parametrize("candidate", ["c", "nix"])
def test_a_candidate_that_there_is_not_is_told_before_any_copy(
    candidate: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        scene = Scene()
        await Shadow(scene.classifier, Aim(candidate, 1.0, "m"), 5.0).check()

    run(test())
    told = [record.getMessage() for record in caplog.records]
    assert [("no model 'nix'" in each) for each in told] == [True] * (candidate == "nix")


def test_what_has_no_room_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        monkeypatch.setattr(shadow, "MOST_COPIES", 3)
        scene = Scene(hold=True)
        for _ in range(5):
            scene.shadow.offer(copy_of(scene.models[0]))
        assert scene.counts() == {"full": 2}
        monkeypatch.setattr(shadow, "MOST_COPIES", 100)
        monkeypatch.setattr(shadow, "MOST_BYTES", 4 * IMAGE.nbytes)
        for _ in range(2):
            scene.shadow.offer(copy_of(scene.models[0]))
        assert scene.counts() == {"full": 3}
        task = asyncio.create_task(scene.shadow.run())
        while len(scene.engine.calls) < 4:  # one at a time
            assert sum(not call.answer.done() for call in scene.engine.calls) <= 1
            for call in scene.engine.calls:
                if not call.answer.done():
                    call.finish()
            await asyncio.sleep(0.005)
        scene.engine.calls[-1].finish()
        await scene.until(full=3, compared=4)
        scene.shadow.offer(copy_of(scene.models[0]))  # what was compared makes room
        assert scene.counts() == {"full": 3, "compared": 4}
        task.cancel()

    run(test())


def test_a_copy_waits_while_images_of_users_do_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test() -> None:
        monkeypatch.setattr(shadow, "PATIENCE", 0.1)
        scene = Scene()
        waiting = [1]
        monkeypatch.setattr(Classifier, "queued", property(lambda _: len(waiting)))
        task = asyncio.create_task(scene.shadow.run())
        scene.shadow.offer(copy_of(scene.models[0]))
        await scene.until(busy=1)
        assert not scene.engine.calls
        monkeypatch.setattr(shadow, "PATIENCE", 10.0)
        scene.shadow.offer(copy_of(scene.models[0]))
        await asyncio.sleep(0.05)
        assert not scene.engine.calls
        waiting.clear()
        await scene.until(busy=1, compared=1)
        task.cancel()

    run(test())


def test_a_candidate_that_hangs_gets_fewer_and_fewer_copies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test() -> None:
        monkeypatch.setattr(shadow, "LEAST_PAUSE", 0.05)
        scene = Scene(hold=True, seconds=0.02)
        failures: list[float] = []
        count = scene.shadow._count

        def noted(copy: Copy, other: str, outcome: str) -> None:
            if outcome == "failed":
                failures.append(time.monotonic())
            count(copy, other, outcome)

        monkeypatch.setattr(scene.shadow, "_count", noted)
        task = asyncio.create_task(scene.shadow.run())
        while len(failures) < 3:
            scene.shadow.offer(copy_of(scene.models[0]))
            await asyncio.sleep(0.001)
        # 0.02 s each, with pauses of 0.05 s and 0.1 s before; on a busy machine all takes longer.
        first, second = (later - one for one, later in itertools.pairwise(failures))
        assert first >= 0.05
        assert second >= 0.1
        assert scene.counts()["paused"] > 3
        assert "compared" not in scene.counts()
        task.cancel()

    run(test())


def test_models_that_cannot_be_compared_are_not() -> None:
    async def test() -> None:
        for one, image in (
            # Pixels for another size, and other classes.
            (model("m"), np.zeros((SIZE + 1, SIZE, 3), np.uint8)),
            (renamed(model("m")), IMAGE),
        ):
            scene = Scene()
            task = asyncio.create_task(scene.shadow.run())
            scene.shadow.offer(copy_of(one, image=image))
            await scene.until(unfit=1)
            assert not scene.engine.calls
            task.cancel()

    run(test())


def renamed(given: Model) -> Model:
    given.labels[0] = "another"
    return given


def test_the_share_is_kept_and_roles_change_with_the_default() -> None:
    async def test() -> None:
        scene = Scene()
        one, two = scene.models
        assert scene.shadow.wants(one)
        assert not scene.shadow.wants(two)
        scene.engine.default = "c"
        assert scene.shadow.other == "m"
        assert scene.shadow.wants(two)
        assert not scene.shadow.wants(one)
        few = Shadow(scene.classifier, Aim("m", 0.05, "x"), 1.0)
        wanted = sum(few.wants(two) for _ in range(20_000))
        assert 800 < wanted < 1200  # 1000, give or take 31

    run(test())


def test_no_model_is_compared_with_itself_when_the_default_changes() -> None:
    """A copy is for the model that was the other one when its answer had left."""

    async def test() -> None:
        scene = Scene()
        one, two = scene.models
        scene.shadow.offer(copy_of(one))
        scene.engine.default = "c"
        scene.shadow.offer(copy_of(one))  # was answered before the change
        task = asyncio.create_task(scene.shadow.run())
        await scene.until(compared=1)
        assert [call.model.name for call in scene.engine.calls] == ["c"]
        scene.shadow.offer(copy_of(two))
        while len(scene.engine.calls) < 2:  # noqa: ASYNC110 - a list tells nobody
            await asyncio.sleep(0.005)
        assert scene.engine.calls[1].model.name == "m"
        itself = {"model": "m", "candidate": "m", "outcome": "compared"}
        assert REGISTRY.get_sample_value("mixer_shadow_copies_total", itself) is None
        task.cancel()

    run(test())


def test_the_divergence_is_scipys() -> None:
    random = np.random.default_rng(0)
    for classes in (2, 10, 1000):
        p, q = random.dirichlet(np.full(classes, 0.2), 2).astype(np.float32)
        assert jensen_shannon(p, q) == pytest.approx(jensenshannon(p, q, 2) ** 2, abs=1e-6)
        assert jensen_shannon(p, p) == 0
    apart = np.eye(3, dtype=np.float32)
    assert jensen_shannon(apart[0], apart[1]) == 1
    # Several labels: each class is a distribution of its own.
    p, q = np.array([0.9, 0.8, 0.1], np.float32), np.array([0.2, 0.8, 0.3], np.float32)
    each = [jensenshannon([a, 1 - a], [b, 1 - b], 2) ** 2 for a, b in zip(p, q, strict=True)]
    assert jensen_shannon(p, q) == pytest.approx(np.nanmean(each), abs=1e-6)
