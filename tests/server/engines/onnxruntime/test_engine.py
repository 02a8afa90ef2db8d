"""ONNX Runtime in the process, beyond what it has in common: reload, refusals, threads."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest

from contracts.cpu_engines import state_engine
from contracts.model_config import config_text, read_config
from contracts.repository import GRAPH_DIGEST
from server.engines.model import Model, Unusable
from server.engines.onnxruntime import engine as module
from server.engines.onnxruntime.engine import OnnxRuntime
from server.host.niceness import NICENESS
from server.problems import ModelNotReady, TritonAway, UnknownModel
from tests import tiny_models
from tests.photos import photo
from tests.stack import DEFAULT_MODEL, classify, running_gateway
from tests.waiting import CHECKOUT, wait_for

IMAGE = np.arange(32 * 32 * 3, dtype=np.uint32).reshape(32, 32, 3).astype(np.uint8)


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.05)


@contextlib.asynccontextmanager
async def running(repository: Path, default: str = "m") -> AsyncIterator[OnnxRuntime]:
    engine = OnnxRuntime(repository, default)
    watch = asyncio.create_task(engine.watch())
    try:
        await until(lambda: engine.entries() is not None)
        yield engine
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        await engine.close(5)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds; a problem counts as not yet."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(TritonAway, UnknownModel, ModelNotReady):
                if condition():
                    return
            await asyncio.sleep(0.01)


async def answer(engine: OnnxRuntime, name: str = "m") -> bytes:
    probabilities, _ = await engine.infer(engine.get(name), [IMAGE], 30)
    return probabilities.tobytes()


def append(folder: Path, text: str) -> None:
    with (folder / "config.pbtxt").open("a") as config:
        config.write(text)


def test_before_the_first_look_the_models_are_away(tmp_path: Path) -> None:
    async def run() -> None:
        engine = OnnxRuntime(tmp_path, "m")
        with pytest.raises(TritonAway, match="being loaded"):
            engine.entries()
        await engine.close(1)

    asyncio.run(run())


def test_a_model_is_added_changed_and_taken_away_without_a_restart(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(tmp_path) as engine:
            assert engine.entries() == []
            folder = tiny_models.publish(tmp_path, "m")
            await until(lambda: isinstance(engine.entry("m"), Model))
            before, first = engine.get("m"), await answer(engine)

            onnx.save(tiny_models.graph(seed=1), folder / "1/new.onnx")
            (folder / "1/new.onnx").replace(folder / "1/model.onnx")
            await until(lambda: engine.get("m") is not before)
            assert await answer(engine) != first
            # A request that was for the model as it was is answered by what there is now.
            assert len((await engine.infer(before, [IMAGE], 30))[0]) == 1

            shutil.rmtree(folder)
            await until(lambda: engine.entries() == [])

    asyncio.run(run())


def test_a_request_for_a_model_of_another_kind_is_not_answered_by_it(tmp_path: Path) -> None:
    async def run() -> None:
        folder = tiny_models.publish(tmp_path, "m")
        async with running(tmp_path) as engine:
            before = engine.get("m")
            (folder / "labels.txt").write_text("another\n")
            await until(lambda: engine.get("m") is not before)
            with pytest.raises(ModelNotReady, match="exchanged"):
                await engine.infer(before, [IMAGE], 30)

    asyncio.run(run())


def test_a_model_that_cannot_be_loaded_again_is_served_as_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        folder = tiny_models.publish(tmp_path, "m")
        async with running(tmp_path) as engine:
            before, first = engine.get("m"), await answer(engine)
            (folder / "1/model.onnx").write_bytes(b"half of it")
            await until(lambda: "goes on as it was" in caplog.text)
            assert engine.get("m") is before
            assert await answer(engine) == first
            assert await engine.probe() == []
            onnx.save(tiny_models.graph(seed=1), folder / "1/model.onnx")
            await until(lambda: engine.get("m") is not before)

    asyncio.run(run())


def test_a_repository_that_cannot_be_read_leaves_what_is_loaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        repository = tmp_path / "repository"
        repository.mkdir()
        tiny_models.publish(repository, "m")
        async with running(repository) as engine:
            repository.rename(tmp_path / "elsewhere")
            await until(lambda: caplog.text.count("cannot be read") > 2)
            assert await answer(engine)
            (tmp_path / "elsewhere").rename(repository)
            tiny_models.publish(repository, "another")
            await until(lambda: isinstance(engine.entry("another"), Model))

    asyncio.run(run())


WARM_UP = (
    'model_warmup [ {{ name: "w" batch_size: 2 inputs {{ key: "image" value {{ {} }} }} }} ]\n'
)
UINT8 = "data_type: TYPE_UINT8 dims: [ 32, 32, 3 ]"
REFUSED = {
    'instance_group [ { count: 1 kind: KIND_GPU } ]\n': "want a GPU",
    "version_policy { specific { versions: [ 7 ] } }\n": "no folder of a version",
    WARM_UP.format("data_type: TYPE_STRING dims: [ 1 ]"): "warm-up 'w' has TYPE_STRING",
    WARM_UP.format(f'{UINT8} input_data_file: "none"'): "warm-up 'w': ",
    "max_batch_size: 8 8\n": "line ",
}  # fmt: skip


@pytest.mark.parametrize(("text", "reason"), REFUSED.items(), ids=list(REFUSED.values()))
def test_what_is_not_done_is_logged(
    text: str, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        append(tiny_models.publish(tmp_path, "m"), text)
        tiny_models.publish(tmp_path, "sound")
        async with running(tmp_path, "sound") as engine:
            entry = engine.entry("m")
            assert isinstance(entry, Unusable)
            assert "the gateway's log says why" in entry.problem.detail
            assert await answer(engine, "sound")

    asyncio.run(run())
    (line,) = (each for each in caplog.messages if each.startswith("model m cannot be loaded: "))
    assert reason in line
    assert "Traceback" not in caplog.text


def test_a_model_for_tensorrt_is_not_taken_for_one_of_ours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        config = tiny_models.publish(tmp_path, "m") / "config.pbtxt"
        config.write_text(config.read_text().replace('"onnxruntime"', '"tensorrt"'))
        async with running(tmp_path) as engine:
            assert isinstance(engine.entry("m"), Unusable)

    asyncio.run(run())
    assert "for the backend 'tensorrt'" in caplog.text


def test_a_model_for_openvino_is_computed_by_onnx_runtime(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With the answers of a model for ONNX Runtime, to the last bit."""
    caplog.set_level("INFO")

    async def run() -> None:
        for name in ("m", "other"):
            path = tmp_path / name / "config.pbtxt"
            tiny_models.publish(tmp_path, name)
            config = read_config(path)
            state_engine(config, "openvino" if name == "m" else "onnxruntime")
            path.write_text(config_text(config))
        async with running(tmp_path) as engine:
            assert await answer(engine, "m") == await answer(engine, "other")

    asyncio.run(run())
    assert "model m: ONNX Runtime computes it; only Triton has OpenVINO" in caplog.messages


@pytest.mark.parametrize("given", ["zero_data: true", "random_data: true", 'input_data_file: "x"'])
def test_every_kind_of_warm_up_runs(given: str, tmp_path: Path) -> None:
    async def run() -> None:
        folder = tiny_models.publish(tmp_path, "m")
        append(folder, WARM_UP.format(f"{UINT8} {given}"))
        (folder / "warmup").mkdir()
        (folder / "warmup/x").write_bytes(bytes(2 * 32 * 32 * 3))
        async with running(tmp_path) as engine:
            assert isinstance(engine.entry("m"), Model)

    asyncio.run(run())


def threads() -> set[int]:
    return {int(task.name) for task in Path("/proc/self/task").iterdir()}


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a niceness on Linux alone")
def test_inference_threads_have_a_lower_priority(tmp_path: Path) -> None:
    async def run() -> None:
        three = {"intra_op_thread_count": "3"}
        tiny_models.publish(tmp_path, "m", parameters=three)
        own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        before = threads()
        async with running(tmp_path):
            new = threads() - before
            nice = [os.getpriority(os.PRIO_PROCESS, each) - own for each in new]
        # The thread that calls ONNX Runtime, and the two that it has beside that.
        assert nice.count(min(NICENESS, 19 - own)) == 3

    asyncio.run(run())


def test_one_process_serves_and_ends_by_a_signal(tmp_path: Path) -> None:
    repository = CHECKOUT / "model_repository"
    flags = ("--engine", "onnxruntime", "--repository", str(repository))
    with running_gateway(tmp_path / "log", *flags, "--default-model", DEFAULT_MODEL) as gateway:
        children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text()
        assert children == ""
        answer = classify(gateway, photo(0))
        assert answer.status_code == 200
        log = gateway.log.read_text()
        assert "computes in this process, without Triton" in log
        gateway.process.terminate()
        assert gateway.process.wait(20) == 0


@pytest.mark.parametrize("allowed", [False, True])
def test_a_graph_that_was_changed_is_served_only_if_that_is_allowed(
    allowed: bool, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    parameters = {GRAPH_DIGEST: 64 * "0"}
    tiny_models.publish(repository, "m", parameters=parameters)
    flags = ("--engine", "onnxruntime", "--repository", str(repository), "--default-model", "m")
    more = ("--allow-changed-models",) if allowed else ()
    with running_gateway(tmp_path / "log", *flags, *more, ready=allowed) as gateway:
        model = wait_for(lambda: told(gateway.url, "m"))
    assert model["state"] == ("ready" if allowed else "unavailable")
    assert model.get("changed", False) is allowed
    if not allowed:
        assert "changed after its export" in model["reason"]
        assert "--allow-changed-models" in model["reason"]


def told(url: str, name: str) -> dict[str, str] | None:
    """What the gateway tells of the model; None while nothing is loaded."""
    answer = httpx.get(f"{url}/models/{name}", trust_env=False, timeout=30)
    content: dict[str, str] = answer.json()
    return content if answer.status_code == 200 else None


def gateway(*flags: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", "--engine", "onnxruntime", "--port", "0", *flags],
        cwd=CHECKOUT,
        env=os.environ | ({"PYTHONPATH": str(path)} if path else {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--with-triton",), "--with-triton (MIXER_WITH_TRITON): "),
        (("--workers", "2"), "--workers (MIXER_WORKERS): "),
    ],
)
def test_flags_of_triton_are_refused(flags: tuple[str, ...], said: str) -> None:
    done = gateway(*flags)
    assert done.returncode == 2
    assert said in done.stderr
    assert "--engine onnxruntime" in done.stderr


def test_an_unusable_repository_ends_with_1(tmp_path: Path) -> None:
    done = gateway("--repository", str(tmp_path / "none"))
    assert done.returncode == 1
    assert f"{tmp_path}/none is not a folder" in done.stderr


def test_without_its_package_it_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: (\n"
        "    None if name == 'onnxruntime' else found(name, *more)\n"
        ")\n"
    )
    done = gateway(path=tmp_path)
    assert done.returncode == 2
    assert "--engine (MIXER_ENGINE): " in done.stderr
    assert "requirements/locked/onnxruntime.txt" in done.stderr


def test_its_log_says_what_serves(tmp_path: Path) -> None:
    """A missing default model is told, as with a Triton."""
    tiny_models.publish(tmp_path, "m")
    flags = ("--engine", "onnxruntime", "--repository", str(tmp_path), "--default-model", "none")
    with running_gateway(tmp_path / "log", *flags, ready=False) as running:
        wait_for(lambda: "no default model 'none'" in running.log.read_text())
        assert "model m version 1 is ready" in running.log.read_text()
