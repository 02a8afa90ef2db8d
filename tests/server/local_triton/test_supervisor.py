import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from server.local_triton import installation as tritonserver
from server.local_triton import supervisor as local_triton
from server.local_triton.log import TritonLog
from server.local_triton.process import SHARED_MEMORY, children
from server.local_triton.supervisor import ENVIRONMENT, LocalTriton, LocalTritonError, free_port
from tests import tiny_models
from tests.stack import DEFAULT_MODEL, Gateway, running_gateway, running_triton
from tests.waiting import CHECKOUT, wait_for

IMAGE = np.arange(32 * 32 * 3).astype(np.uint8).reshape(1, 32, 32, 3)
Break = Callable[[LocalTriton], None]


def infer(url: str, model: str = DEFAULT_MODEL) -> npt.NDArray[np.float32] | None:
    """The model's probabilities for IMAGE; None when it does not answer."""
    image = triton_grpc.InferInput("image", IMAGE.shape, "UINT8")
    image.set_data_from_numpy(IMAGE)
    with triton_grpc.InferenceServerClient(url) as client:
        try:
            answer: npt.NDArray[np.float32] = client.infer(model, [image]).as_numpy("probabilities")
        except InferenceServerException:
            return None
    return answer


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def shared_memory(launcher: int) -> list[Path]:
    return list(SHARED_MEMORY.glob(f"mixer_serving_{launcher}_*"))


def refusal(triton: LocalTriton) -> str:
    with pytest.raises(LocalTritonError) as caught:
        asyncio.run(triton.run())
    return str(caught.value)


def kill_server(triton: LocalTriton) -> None:
    assert triton.pid is not None
    os.kill(triton.pid, signal.SIGKILL)


def kill_stub(triton: LocalTriton) -> None:
    assert triton.pid is not None
    os.kill(children(triton.pid)[0], signal.SIGKILL)


def stop_for_good(server: int) -> "subprocess.Popen[bytes]":
    """Stop its stubs: like one that waits for a lock which tritonserver held when it was killed.

    Gives a process to be waited for, which the kernel needs: without a member that has its parent
    elsewhere it wakes a group that loses its leader (setpgid(2), orphaned process groups).
    """
    member = subprocess.Popen(["sleep", "600"], process_group=server)
    for stub in children(server):
        os.kill(stub, signal.SIGSTOP)
    return member


def test_answers_on_loopback_alone(triton: LocalTriton) -> None:
    assert infer(triton.grpc_url) is not None
    for port in (triton.grpc_port, triton.metrics_port):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        with pytest.raises(ConnectionRefusedError):  # every address of 127/8 reaches 0.0.0.0
            socket.create_connection(("127.0.0.2", port), timeout=5)


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.register_system_shared_memory("region", "/region", 1024),
        lambda client: client.get_system_shared_memory_status(),
        lambda client: client.update_log_settings({"log_verbose_level": 9}),
        lambda client: client.update_trace_settings(settings={"trace_level": ["TENSORS"]}),
        lambda client: client.load_model(DEFAULT_MODEL),
        lambda client: client.unload_model(DEFAULT_MODEL),
    ],
    ids=["register", "shared_memory", "logging", "trace", "load", "unload"],
)
def test_closes_the_interfaces_that_nobody_needs(
    triton: LocalTriton, call: Callable[[Any], object]
) -> None:
    with (
        triton_grpc.InferenceServerClient(triton.grpc_url) as client,
        pytest.raises(InferenceServerException, match=r"restricted|expecting header|not allowed"),
    ):
        call(client)


def test_passes_no_secret_on(triton: LocalTriton) -> None:
    assert triton.pid is not None
    for pid in (triton.pid, *children(triton.pid)):
        variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
        names = {variable.partition("=")[0] for variable in variables if variable}
        assert "ORT_DISABLE_TELEMETRY=1" in variables
        names -= {"PWD", "SHLVL", "_"}  # of the shell through which Triton starts its stubs
        assert names <= {
            *tritonserver.PASSED_ON,
            "PATH",
            "LD_LIBRARY_PATH",
            "ORT_DISABLE_TELEMETRY",
        }


def test_a_model_gives_way_to_who_takes_requests_in(triton: LocalTriton) -> None:
    """Niceness may count within a session only; signals of a terminal go to a group."""
    assert triton.pid is not None
    assert os.getsid(triton.pid) == os.getsid(0)
    assert os.getpgid(triton.pid) == triton.pid
    lower = min(19, os.getpriority(os.PRIO_PROCESS, triton.pid) + 10)
    stubs = children(triton.pid)
    assert stubs
    for stub in stubs:
        assert os.getpgid(stub) == triton.pid
        assert os.getpriority(os.PRIO_PROCESS, stub) == lower


@pytest.mark.parametrize("harm", [kill_server, kill_stub])
def test_comes_back_on_the_same_address(model_repository: Path, harm: Break) -> None:
    with running_triton(model_repository) as triton:
        before, pid = infer(triton.grpc_url), triton.pid
        assert pid is not None
        processes = [pid, *children(pid)]
        harm(triton)
        wait_for(lambda: triton.pid not in (None, pid), what="another tritonserver")
        after = infer(triton.grpc_url)
        assert before is not None
        assert after is not None
        assert np.array_equal(before, after)
        assert not any(map(is_alive, processes))
    assert not list(SHARED_MEMORY.glob(f"mixer_serving_{os.getpid()}_{triton.grpc_port}_*"))


def test_comes_back_although_its_stubs_stay(model_repository: Path) -> None:
    with running_triton(model_repository) as triton:
        pid = triton.pid
        assert pid is not None
        stubs = children(pid)
        member = stop_for_good(pid)
        kill_server(triton)
        wait_for(lambda: triton.pid not in (None, pid), what="another tritonserver")
        assert infer(triton.grpc_url) is not None
        assert not any(map(is_alive, stubs))
        assert member.wait(10) == -signal.SIGKILL


def test_gives_up_on_one_that_keeps_dying(
    model_repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(local_triton, "QUICK_DEATHS", 2)

    async def main() -> None:
        triton = LocalTriton(model_repository)
        supervisor = asyncio.create_task(triton.run())
        killed = None
        while not supervisor.done():
            if triton.pid not in (None, killed):
                killed = triton.pid
                kill_server(triton)
            await asyncio.sleep(0.02)
        await supervisor

    with pytest.raises(LocalTritonError, match="2 times in a row"):
        asyncio.run(main())
    assert "starting it again" in caplog.text


def test_serves_the_models_that_load(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny_models.publish(tmp_path, "good")
    broken = tiny_models.publish(tmp_path, "broken")
    (broken / tiny_models.MODEL_FILE).write_bytes(b"not a graph")
    with running_triton(tmp_path) as triton:
        assert infer(triton.grpc_url, "good") is not None
        assert infer(triton.grpc_url, "broken") is None
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert "failed to load 'broken'" in errors[0]


def test_refuses_an_unusable_repository(tmp_path: Path) -> None:
    assert "not a folder" in refusal(LocalTriton(tmp_path / "missing"))
    (tmp_path / "empty").mkdir()
    assert "python -m export" in refusal(LocalTriton(tmp_path / "empty"))
    broken = tiny_models.publish(tmp_path / "broken", "broken")
    (broken / tiny_models.MODEL_FILE).unlink()
    message = refusal(LocalTriton(tmp_path / "broken"))
    assert "could load no model" in message
    assert "model.onnx is missing" in message


def test_refuses_a_port_that_is_taken(model_repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert f"127.0.0.1:{port}" in refusal(LocalTriton(model_repository, grpc_port=port))
        assert f"127.0.0.1:{port}" in refusal(LocalTriton(model_repository, metrics_port=port))


def test_says_what_to_do_without_the_wheel(model_repository: Path, tmp_path: Path) -> None:
    message = refusal(LocalTriton(model_repository, environment=tmp_path))
    assert "make serve" in message
    assert "docker compose up" in message


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("sys.platform", "darwin", "darwin"),
        ("platform.machine", lambda: "riscv64", "riscv64"),
        ("platform.libc_ver", lambda: ("glibc", "2.31"), "2.31"),
        ("platform.libc_ver", lambda: ("", ""), "glibc"),
    ],
)
def test_says_what_to_do_on_another_system(
    model_repository: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: object, expected: str
) -> None:
    monkeypatch.setattr(f"server.local_triton.installation.{name}", value)
    message = refusal(LocalTriton(model_repository))
    assert expected in message
    assert "docker compose up" in message


def test_says_which_library_is_missing(tmp_path: Path) -> None:
    found = replace(tritonserver.find(ENVIRONMENT), libraries=())
    with pytest.raises(LocalTritonError, match=r"cannot open shared object.*docker compose up"):
        tritonserver.make_backends(found, tmp_path / "backends")


def test_says_that_programs_cannot_run_there(tmp_path: Path) -> None:
    stub = tmp_path / "triton_python_backend_stub"
    stub.write_bytes(b"\0")
    found = replace(tritonserver.find(ENVIRONMENT), stub=stub)
    with pytest.raises(LocalTritonError, match=r"cannot run a program in .*TMPDIR"):
        tritonserver.make_backends(found, tmp_path / "backends")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_leaves_nothing_behind(
    model_repository: Path, tmp_path: Path, number: signal.Signals
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with running_gateway(
        tmp_path / "log",
        *("--with-triton", "--repository", str(model_repository)),
        *("--default-model", DEFAULT_MODEL),
        environment={"TMPDIR": str(scratch)},
    ) as gateway:
        server, *others = children(gateway.pid)
        stubs = children(server)
        assert not others
        assert len(stubs) == 2  # one for each model
        assert shared_memory(gateway.pid)
        end(gateway, number)
        wait_for(lambda: not any(map(is_alive, (server, *stubs))), what="no process")
        wait_for(lambda: not shared_memory(gateway.pid), what="no shared memory")
        assert not list(scratch.iterdir())


def test_a_killed_launcher_leaves_no_stub_that_hangs(model_repository: Path) -> None:
    ports = {name: str(free_port()) for name in ("grpc", "metrics", "http")}
    flags = [part for name, port in ports.items() for part in (f"--{name}-port", port)]
    command = [sys.executable, "-m", "server.triton_alone", "--repository", str(model_repository)]
    with subprocess.Popen([*command, *flags], cwd=CHECKOUT) as launcher:
        try:
            url = f"127.0.0.1:{ports['grpc']}"
            wait_for(lambda: infer(url) is not None, what="an answer")
            (server,) = children(launcher.pid)
            stubs = children(server)
            member = stop_for_good(server)
        finally:
            launcher.kill()
    wait_for(lambda: not any(map(is_alive, (server, *stubs))), what="no process")
    wait_for(lambda: not shared_memory(launcher.pid), what="no shared memory")
    assert member.wait(10) == -signal.SIGKILL


def end(gateway: Gateway, number: signal.Signals) -> None:
    """End it as a terminal does, which signals the whole group, or kill the launcher alone."""
    if number == signal.SIGKILL:
        gateway.process.kill()
        gateway.process.wait(30)
    else:
        os.killpg(gateway.pid, number)
        assert gateway.process.wait(30) == 0


def test_can_be_stopped_at_any_time(model_repository: Path) -> None:
    async def main(patience: float) -> None:
        triton = LocalTriton(model_repository)
        supervisor = asyncio.create_task(triton.run())
        await asyncio.sleep(patience)
        await triton.stop()
        await supervisor
        await triton.run()  # stays stopped
        assert triton.pid is None

    before = children(os.getpid())
    for patience in (0, 0.2):  # before it has begun, while it loads its models
        asyncio.run(main(patience))
    assert children(os.getpid()) == before


def test_logs_at_the_levels_of_the_others(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    triton_log = TritonLog()
    for line in (
        "2026-01-31T12:00:00Z I 7 model_lifecycle.cc:839] \"successfully loaded 'cat'\"",
        '2026-01-31T12:00:00Z W 7 file.cc:1] "beware"',
        '2026-01-31T12:00:00Z E 7 server.cc:241] "CudaDriverHelper has not been initialized."',
        '2026-01-31T12:00:00Z E 7 file.cc:2] "wrong: bad\\n\\nAt:\\n  model.py(12): initialize\\n"',
        "E0131 12:00:00.632502468    7039 chttp2_server.cc:1060]      UNKNOWN: no address",
        "| Model | Version |",
        "",
    ):
        triton_log.feed(line)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("DEBUG", "successfully loaded 'cat'"),
        ("WARNING", "beware"),
        ("DEBUG", "CudaDriverHelper has not been initialized."),
        ("ERROR", "wrong: bad"),
        ("ERROR", "UNKNOWN: no address"),
        ("DEBUG", "| Model | Version |"),
    ]
    assert triton_log.models == ["cat"]
    assert list(triton_log.errors) == ["wrong: bad", "UNKNOWN: no address"]
    assert free_port() != free_port()
