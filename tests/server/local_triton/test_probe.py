"""The probe of a real Triton: what it finds, and what it leaves alone."""

import asyncio
import itertools
import shutil
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton_grpc

from server.local_triton import loopback, probe
from server.local_triton.command_line import Key
from server.local_triton.launch import LocalTritonError
from server.local_triton.loopback import Answer
from server.local_triton.probe import Prober
from server.local_triton.supervisor import LocalTriton, free_port
from tests import tiny_models
from tests.server.local_triton.harm import infer
from tests.stack import running_triton


async def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - a thread changes it
            await asyncio.sleep(0.02)


def probing(
    triton: LocalTriton, repository: Path, check: Callable[[Prober], Awaitable[None]]
) -> None:
    """Run a second prober on a Triton whose HTTP is open, and `check` beside it."""

    async def main() -> None:
        prober = Prober(triton.http_port, Key(), repository)
        await prober.started()
        running = asyncio.create_task(prober.run())
        try:
            await check(prober)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalTriton, Path]]:
    """A Triton whose HTTP answers without a key, and its repository; its own supervisor probes it
    as well."""
    repository = tmp_path_factory.mktemp("models")
    tiny_models.publish(repository, "good")
    (tiny_models.publish(repository, "broken") / "1/model.onnx").unlink()
    with running_triton(repository, triton=LocalTriton(repository, http_port=free_port())) as it:
        yield it, repository


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that the second prober has asked Triton for, which it now does more often."""
    paths: list[str] = []
    this = threading.current_thread()

    async def exchange(port: int, method: str, path: str, *rest: Any) -> Answer:
        if threading.current_thread() is this:
            paths.append(path)
        return await loopback.exchange(port, method, path, *rest)

    monkeypatch.setattr(probe, "exchange", exchange)
    monkeypatch.setattr(probe, "INTERVAL_S", 0.3)
    return paths


def test_finds_out_what_is_wrong_with_each_model(
    served: tuple[LocalTriton, Path], asked: list[str]
) -> None:
    triton, repository = served

    async def check(prober: Prober) -> None:
        assert prober.problems()["good"] == "has not answered its probe yet"
        await until(lambda: prober.models["good"].problem is None)
        assert prober.problems().keys() == {"broken"}
        assert "model.onnx is missing" in prober.problems()["broken"]
        assert "At:" not in prober.problems()["broken"]
        assert await prober.probe("good") is None
        assert await prober.probe("none") == "is not loaded"
        # One that is added needs a restart of Triton, and is no fault of this one.
        later = tiny_models.publish(repository, "later")
        try:
            asked.clear()
            # When the third is asked, the second has been heard.
            await until(lambda: asked.count("/v2/repository/index") == 3)
            assert prober.problems().keys() == {"broken"}
        finally:
            shutil.rmtree(later)

    probing(triton, repository, check)


def test_leaves_a_model_alone_that_answers_others(
    served: tuple[LocalTriton, Path], asked: list[str]
) -> None:
    triton, _ = served

    async def check(prober: Prober) -> None:
        await until(lambda: prober.models["good"].problem is None)
        began = time.monotonic()
        before = await asyncio.to_thread(executions, triton, "good")
        asked.clear()
        answered = [time.monotonic()]
        while answered[-1] - answered[0] < 4:
            assert await asyncio.to_thread(infer, triton.grpc_url, "good") is not None
            answered.append(time.monotonic())
        others = len(answered) - 1
        busy = answered[-1] - answered[0]
        counts = asked.count("/v2/models/stats")
        probes = await asyncio.to_thread(executions, triton, "good") - before - others
        # In four seconds each of the two probers may ask three times.
        turns = int((time.monotonic() - began) / probe.INTERVAL_S) + 1
        # On a busy machine an answer may take so long that both probers ask meanwhile.
        pauses = sum(b - a > probe.INTERVAL_S for a, b in itertools.pairwise(answered))
        # And each of them may have to ask before it has counted others' answers anew.
        late = max(0, int(busy / probe.INTERVAL_S) - counts)
        assert probes <= 2 * (turns + pauses + late)
        idle, since = 0, time.monotonic()
        async with asyncio.timeout(30):
            while idle <= probes:
                await asyncio.sleep(probe.INTERVAL_S)
                now = await asyncio.to_thread(executions, triton, "good")
                idle = now - before - others - probes
        assert pauses or idle / (time.monotonic() - since) > probes / busy

    probing(*served, check)


def executions(triton: LocalTriton, model: str) -> int:
    with triton_grpc.InferenceServerClient(triton.grpc_url) as client:
        return int(client.get_inference_statistics(model).model_stats[0].execution_count)


def test_a_model_that_does_not_load_is_reported(served: tuple[LocalTriton, Path]) -> None:
    async def check(prober: Prober) -> None:
        with pytest.raises(LocalTritonError, match=r"Triton does not load it: .*not allowed"):
            await prober.load("good")

    probing(*served, check)


def test_a_wrong_golden_answer_is_reported(
    served: tuple[LocalTriton, Path], tmp_path: Path
) -> None:
    tiny_models.publish(tmp_path, "good")
    (tmp_path / "good/golden.json").write_text("[]")

    async def check(prober: Prober) -> None:
        await until(lambda: "golden.json" in str(prober.models["good"].problem))

    probing(served[0], tmp_path, check)


def test_nobody_there_is_waited_for(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await Prober(free_port(), Key(), tmp_path).started()

    asyncio.run(main())
