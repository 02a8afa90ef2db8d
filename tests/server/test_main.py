"""`python -m server` as a process: settings, ports, signals, and a Triton of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from server.local_triton.stubs import children, is_alive
from server.local_triton.supervisor import LocalTriton
from tests.photos import photo
from tests.stack import DEFAULT_MODEL, classify, running_gateway, status
from tests.waiting import CHECKOUT, wait_for


def run(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", *flags],
        cwd=CHECKOUT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_names_every_setting() -> None:
    done = run("--help")
    assert done.returncode == 0
    for flag in ("--host", "--port", "--triton-url", "--with-triton", "--request-timeout"):
        assert flag in done.stdout
    for command in ("classify", "similar", "key", "default"):
        assert f"`{command}`" in done.stdout
    assert "default factory" not in done.stdout


@pytest.mark.parametrize(
    ("flags", "environment", "message"),
    [
        (["--port", "http"], {}, "--port (MIXER_PORT): "),
        ([], {"MIXER_MAX_PIXELS": "0"}, "--max-pixels (MIXER_MAX_PIXELS): "),
        ([], {"MIXER_PROT": "1"}, "MIXER_PROT: no setting has this name"),
        (["--prot", "1"], {}, "unrecognized arguments: --prot"),
        (["clasify"], {}, "classify, similar, key, default"),
        (["clasify", "cat.jpg"], {}, "did you mean classify?"),
    ],
)
def test_a_bad_setting_ends_with_2_and_its_name(
    flags: list[str], environment: dict[str, str], message: str
) -> None:
    done = run(*flags, **environment)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_and_an_unknown_host_end_with_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        done = run("--port", port)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr
    assert f"--port, as MIXER_PORT={int(port) + 1} make serve" in done.stderr
    done = run("--host", "192.0.2.1")
    assert done.returncode == 1
    assert "cannot listen on 192.0.2.1" in done.stderr
    assert "MIXER_PORT" not in done.stderr


def test_an_unusable_repository_ends_with_1(tmp_path: Path) -> None:
    done = run("--port", "0", "--with-triton", "--repository", str(tmp_path / "none"))
    assert done.returncode == 1
    assert str(tmp_path / "none") in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_request_under_way_finish(
    number: signal.Signals, triton: LocalTriton, tmp_path: Path
) -> None:
    image = photo(0, 100, 100)
    flags = ("--triton-url", triton.grpc_url, "--default-model", DEFAULT_MODEL)
    with running_gateway(tmp_path / "log", *flags) as gateway:
        host, port = gateway.url.removeprefix("http://").split(":")
        head = f"POST /classify HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/jpeg\r\n"
        with socket.create_connection((host, int(port)), 20) as client:
            client.sendall(f"{head}Content-Length: {len(image)}\r\n\r\n".encode())
            client.sendall(image[:1000])
            # The gateway has begun with the request once it has answered a later one.
            assert status(f"{gateway.url}/livez") == 200
            gateway.process.send_signal(number)
            wait_for(lambda: status(f"{gateway.url}/livez") is None, what="a closed door")
            assert gateway.process.poll() is None
            client.sendall(image[1000:])
            answer = b""
            while chunk := client.recv(65536):
                answer += chunk
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b'"predictions":[{' in answer
        assert gateway.process.wait(20) == 0
        assert "Traceback" not in gateway.log.read_text()


def test_with_triton_it_serves_on_its_own_and_leaves_nothing(
    model_repository: Path, tmp_path: Path
) -> None:
    flags = ("--with-triton", "--repository", str(model_repository))
    with running_gateway(tmp_path / "log", *flags, "--default-model", DEFAULT_MODEL) as gateway:
        family = descendants(gateway.pid)
        assert len(family) >= 2  # tritonserver and the processes of its models
        response = classify(gateway, photo(0))
        assert response.status_code == 200, response.text
        ready = f"ready: {DEFAULT_MODEL} answers at {gateway.url}"
        wait_for(lambda: ready in gateway.log.read_text(), what="the line that says ready")
        gateway.process.send_signal(signal.SIGINT)
        assert gateway.process.wait(20) == 0
        log = gateway.log.read_text()
        assert log.count(ready) == 1
        assert log.index("listening on") < log.index("ready: ") < log.index("stopping: ")
        assert log.index("stopping: ") < log.rindex("stopped")
        # They have closed all their files; the kernel may have them for a moment yet. Left alone
        # they would need longer to see that their parent has gone.
        wait_for(lambda: not any(map(is_alive, family)), 0.2, "the end of all its processes")


def descendants(pid: int) -> list[int]:
    """Every process under `pid`."""
    found = children(pid)
    return [*found, *(each for child in found for each in descendants(child))]


def test_a_triton_of_its_own_that_has_not_answered_yet_is_starting(
    model_repository: Path, tmp_path: Path
) -> None:
    flags = ("--with-triton", "--repository", str(model_repository))
    with running_gateway(tmp_path / "log", *flags, ready=False) as gateway:
        response = httpx.get(f"{gateway.url}/models", trust_env=False)
        assert response.status_code == 503
        assert response.json()["detail"].startswith("Triton is still starting")
        wait_for(lambda: "is ready on" in gateway.log.read_text(), what="a Triton that has started")
        log = gateway.log.read_text()
        assert "--with-triton starts one" not in log
        assert "does not answer" not in log


# Docker and many companies put these into every environment; the port is one of nobody.
PROXIES = {
    **dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy", "all_proxy"), "http://127.0.0.1:9"),
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9"),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), ""),
}


def test_no_proxy_stands_between_it_and_its_own_triton(
    model_repository: Path, tmp_path: Path
) -> None:
    flags = ("--with-triton", "--repository", str(model_repository))
    with running_gateway(
        tmp_path / "log", *flags, "--default-model", DEFAULT_MODEL, environment=PROXIES
    ) as gateway:
        image = tmp_path / "cat.jpg"
        image.write_bytes(photo(0))
        done = subprocess.run(
            [sys.executable, "-m", "server", "classify", str(image), "--url", gateway.url],
            cwd=CHECKOUT, env=os.environ | PROXIES, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_triton_that_hangs_is_started_again_within_15_s(
    model_repository: Path, tmp_path: Path, workers: str
) -> None:
    """SIGSTOP: no process dies, so nothing but failed probes can tell."""
    flags = ("--with-triton", "--repository", str(model_repository), "--workers", workers)
    with running_gateway(tmp_path / "log", *flags, "--default-model", DEFAULT_MODEL) as gateway:
        (server,) = (pid for pid in children(gateway.pid) if children(pid) and is_triton(pid))
        began = time.monotonic()
        os.kill(server, signal.SIGSTOP)
        wait_for(lambda: status(f"{gateway.url}/readyz") != 200, 15, "a gateway that is not ready")
        # Of two workers one may not have noticed yet, and answer that it is ready.
        wait_for(lambda: not is_alive(server), 15, "the end of the Triton that hangs")
        wait_for(lambda: status(f"{gateway.url}/readyz") == 200, 15, "a ready gateway")

        def all_answer() -> bool:
            return all(classify(gateway, photo(0)).status_code == 200 for _ in range(8))

        # Each worker looks for Triton by itself: the other one may find it up to a second later.
        wait_for(all_answer, 15, "answers of every worker")
        assert time.monotonic() - began < 15


def is_triton(pid: int) -> bool:
    return b"tritonserver" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]


def test_a_home_folder_may_be_meant_by_a_tilde(tmp_path: Path) -> None:
    done = run("--with-triton", "--repository", "~/none", "--port", "0", HOME=str(tmp_path))
    assert done.returncode == 1
    assert f"the model repository {tmp_path}/none is not a folder" in done.stderr
    done = run(MIXER_REPOSITORY="~nobody-at-all/models")
    assert done.returncode == 2
    assert "--repository (MIXER_REPOSITORY): " in done.stderr
    assert "Traceback" not in done.stderr
