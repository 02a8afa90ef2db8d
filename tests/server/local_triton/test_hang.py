"""When silence is a hang, told with a clock and CPU times of the test's own."""

from pathlib import Path

import pytest

from server.local_triton.command_line import Key
from server.local_triton.hang import (
    BUSY_MODEL_S,
    BUSY_SERVER_S,
    IDLE_S,
    UNKNOWN_S,
    HangWatch,
)
from server.local_triton.probe import ModelProbe, Prober

TICK = 0.5


class Scene:
    """A Triton with one model; time passes in ticks, and CPU is used as the test says."""

    def __init__(self, *, known: bool = True) -> None:
        self.prober = Prober(1, Key(), Path())
        self.prober.models["cat"] = self.model = ModelProbe()
        self.cpu: dict[str | None, float] = {None: 0.0, "cat": 0.0}
        self.watch = HangWatch(self.prober, lambda name: self.cpu[name] if known else None)
        self.now = 1000.0

    def tick(self, seconds: float = TICK, **used: float) -> list[str | None]:
        """What hangs after that time; `triton` and `cat` are CPU seconds used in it."""
        self.now += seconds
        self.cpu[None] += used.get("triton", 0.0)
        self.cpu["cat"] += used.get("cat", 0.0)
        return [name for name, _ in self.watch.judge(self.now)]

    def until_it_hangs(self, **used: float) -> float:
        """Seconds until something hangs; at most 1000."""
        began = self.now
        while not self.tick(**used):
            assert self.now < began + 1000
        return self.now - began


def test_a_silent_model_that_uses_no_cpu_hangs_soon() -> None:
    scene = Scene()
    scene.model.silent_since = scene.now
    assert IDLE_S <= scene.until_it_hangs() <= IDLE_S + 3 * TICK
    assert scene.watch.judge(scene.now)[0][1].startswith("model cat has not answered its probe for")


def test_so_does_a_silent_triton() -> None:
    scene = Scene()
    scene.prober.server.silent_since = scene.now
    assert IDLE_S <= scene.until_it_hangs() <= IDLE_S + 3 * TICK
    assert scene.watch.judge(scene.now)[0][0] is None


def test_what_a_waiting_process_uses_does_not_count() -> None:
    scene = Scene()
    scene.model.silent_since = scene.now
    assert scene.until_it_hangs(cat=0.0003) <= IDLE_S + 3 * TICK


def test_a_model_that_computes_gets_more_patience() -> None:
    scene = Scene()
    scene.model.silent_since = scene.now
    assert BUSY_MODEL_S <= scene.until_it_hangs(cat=0.4) <= BUSY_MODEL_S + 3 * TICK


def test_a_triton_that_computes_gets_more_patience() -> None:
    scene = Scene()
    scene.prober.server.silent_since = scene.now
    assert BUSY_SERVER_S <= scene.until_it_hangs(triton=0.4) <= BUSY_SERVER_S + 3 * TICK


def test_one_that_stops_in_the_middle_of_a_batch_hangs() -> None:
    scene = Scene()
    scene.model.silent_since = scene.now
    for _ in range(20):
        assert not scene.tick(cat=0.4)
    assert scene.until_it_hangs() <= IDLE_S + 3 * TICK


def test_other_batches_of_the_model_are_a_sign_of_life() -> None:
    scene = Scene()
    scene.model.silent_since = scene.now
    for _ in range(100):
        scene.model.executions += 1
        assert not scene.tick()
    assert IDLE_S <= scene.until_it_hangs() <= IDLE_S + 3 * TICK


def test_an_answer_ends_the_silence() -> None:
    scene = Scene()
    for _ in range(10):
        scene.model.silent_since = scene.now
        for _ in range(int(IDLE_S / TICK) - 1):
            assert not scene.tick()
        scene.model.silent_since = None
        assert not scene.tick()


def test_where_the_cpu_time_is_unknown_time_alone_decides() -> None:
    scene = Scene(known=False)
    scene.model.silent_since = scene.now
    assert UNKNOWN_S <= scene.until_it_hangs() <= UNKNOWN_S + 3 * TICK


@pytest.mark.parametrize("pause", [60.0, 3600.0])
def test_a_pause_of_the_supervisor_is_no_hang(pause: float) -> None:
    scene = Scene()
    scene.model.silent_since = scene.now
    assert not scene.tick()
    assert not scene.tick(pause)
    assert not scene.tick()


def test_a_model_that_is_unloaded_is_forgotten() -> None:
    scene = Scene()
    scene.model.silent_since = scene.now
    scene.tick()
    scene.tick()
    assert scene.watch.silences()
    del scene.prober.models["cat"]
    scene.tick()
    assert not scene.watch.silences()
