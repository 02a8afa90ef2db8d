"""`docker compose up`, for real: it serves, it is closed, it comes back, it leaves nothing."""

import contextlib
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from server import __version__
from server.settings import CLIENT_PREFIX, PREFIX, Settings
from tests import tiny_models
from tests.compose.stack import SERVICES, Stack, check_right, missing, run, running_stack
from tests.photos import photo
from tests.waiting import CHECKOUT, wait_for

LACKING = missing()
pytestmark = [pytest.mark.skipif(bool(LACKING), reason=LACKING), pytest.mark.timeout(600)]
PROFILES = ("", "loadtest", "observability", "export", "*")
OVERLAYS: tuple[tuple[str, ...], ...] = ((), ("docker-compose.gpu.yml",))
NVIDIA = {"TRITON_IMAGE": "nvcr.io/nvidia/tritonserver:26.08-py3"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One for all tests here, each of which leaves it serving."""
    with running_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running
        running.wait()
        running.compose("stop")
        # SIGTERM is understood: neither 143 (nobody listened) nor 137 (killed in the end).
        assert [running.inspect(name)["State"]["ExitCode"] for name in SERVICES] == [0, 0]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda files: "+".join(files) or "base")
@pytest.mark.parametrize("variables", [{}, NVIDIA], ids=["wheel", "nvidia"])
def test_the_configuration_is_valid(
    overlay: tuple[str, ...], profile: str, variables: dict[str, str]
) -> None:
    files = [word for name in ("docker-compose.yml", *overlay) for word in ("--file", name)]
    profiles = ("--profile", profile) if profile else ()
    shown = run("docker", "compose", *files, *profiles, "config", variables=variables)
    assert "variable is not set" not in shown.stderr
    nvidia = bool(overlay or variables)
    assert ("target: triton-nvidia" in shown.stdout) == nvidia


def test_the_example_names_every_variable_and_no_other() -> None:
    """`.env.example` against the compose files, and its MIXER_ variables against the settings."""
    files = "".join(path.read_text() for path in CHECKOUT.glob("docker-compose*.yml"))
    read = set(re.findall(r"\$\{([A-Z_]+)", files)) - {"VARIABLE"}
    passed_on = set(re.findall(r"^ +([A-Z_]+):$", files, re.MULTILINE))  # if they are set
    read |= set(re.findall(r"\b(PYTHON_IMAGE): ?\}", files)) | passed_on
    example = (CHECKOUT / ".env.example").read_text()
    named = set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE))
    settings = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    assert {name for name in named if name.startswith(PREFIX)} <= settings
    assert not any(name.startswith(CLIENT_PREFIX) for name in named)
    assert {name for name in named if not name.startswith(PREFIX)} == read
    for name, value in re.findall(r"^#([A-Z_]+)=(.*)$", example, re.MULTILINE):
        # Without a default, or with another for GPUs.
        special = {"GPU_COUNT", "HEIC", "IMAGES", "PYTHON_IMAGE", "TRACING"}
        special |= {"TRITON_MEMORY", "TRITON_SHM"} | passed_on
        if name in read - special:
            assert f"${{{name}:-{value}}}" in files, f"{name} has another default"


def test_answers_as_the_model_itself_does(stack: Stack) -> None:
    for seed in range(3):
        check_right(stack.classify(photo(seed)), photo(seed))


def test_images_say_what_they_are_and_are_small(stack: Stack) -> None:
    base = int(
        run("docker", "image", "inspect", "-f", "{{.Size}}", "python:3.11-slim-bookworm").stdout
    )
    for service, megabytes in (("gateway", 310 - 162), ("triton", 540 - 162)):
        image = stack.inspect(service)["Image"]
        assert size_of(image) - base < megabytes * 10**6
        labels = stack.inspect(service)["Config"]["Labels"]
        assert labels["org.opencontainers.image.version"] == __version__
        assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


def size_of(image: str) -> int:
    return int(run("docker", "image", "inspect", "--format", "{{.Size}}", image).stdout)


@pytest.mark.parametrize("service", SERVICES)
def test_containers_are_locked_down(stack: Stack, service: str) -> None:
    host = stack.inspect(service)["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert not host["Privileged"]
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    # And seen from within, for every process.
    code = (
        "import pathlib, re\n"
        "for path in pathlib.Path('/proc').glob('[0-9]*/status'):\n"
        "    text = path.read_text()\n"
        "    print(re.findall(r'^(?:Uid|CapEff|CapBnd|NoNewPrivs):\\t(\\S+)', text, re.M))"
    )
    shown = stack.compose("exec", service, "python3", "-c", code).stdout.splitlines()
    assert len(shown) >= 2
    assert set(shown) == {"['10001', '0000000000000000', '0000000000000000', '1']"}
    refused = stack.compose("exec", service, "touch", "/opt/mixer-serving/x", check=False)
    assert "Read-only file system" in refused.stderr
    if service == "triton":
        refused = stack.compose("exec", service, "touch", "/models/x", check=False)
        assert "Read-only file system" in refused.stderr


def test_only_the_gateway_can_be_reached(stack: Stack) -> None:
    assert not any(stack.inspect("triton")["NetworkSettings"]["Ports"].values())
    published = stack.inspect("gateway")["NetworkSettings"]["Ports"]
    assert published == {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(stack.port)}]}
    for port in (8001, 8002):
        with contextlib.closing(socket.socket()) as client:
            client.settimeout(5)
            assert client.connect_ex(("127.0.0.1", port)) != 0
    # Triton's HTTP is on its own loopback; from the gateway only gRPC and metrics are seen.
    code = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"

    def reaches(service: str, host: str, port: int) -> bool:
        command = ("exec", service, "python3", "-c", code, host, str(port))
        return stack.compose(*command, check=False).returncode == 0

    assert reaches("gateway", "triton", 8001)
    assert reaches("gateway", "triton", 8002)
    assert reaches("gateway", "triton", 8003)
    assert not reaches("gateway", "triton", 8000)
    # Nothing leaves Triton's network, and one container on the other network does not know it.
    assert not reaches("triton", "192.0.2.1", 80)
    network = f"{stack.project}_front"
    image = f"{stack.project}-gateway"
    alone = ("docker", "run", "--rm", "--network", network, "--entrypoint", "python3", image)
    assert run(*alone, "-c", code, "gateway", "8000", check=False).returncode == 0
    assert run(*alone, "-c", code, "triton", "8001", check=False).returncode != 0
    address = stack.inspect("triton")["NetworkSettings"]["Networks"][f"{stack.project}_back"]
    assert run(*alone, "-c", code, address["IPAddress"], "8001", check=False).returncode != 0


@pytest.mark.parametrize(
    ("service", "process"),
    [
        ("triton", "bin/tritonserver"),
        ("triton", "triton_python_backend_stub"),
        ("triton", "server.triton_alone"),
        ("gateway", "-m server"),
    ],
    ids=["tritonserver", "stub", "supervisor", "gateway"],
)
def test_a_killed_process_comes_back(stack: Stack, service: str, process: str) -> None:
    stack.wait()
    pid = stack.pid(service, process)
    assert pid
    stack.signal(pid, "SIGKILL")
    wait_for(lambda: stack.pid(service, process) not in (None, pid), what=f"another {process}")
    # /readyz may still tell, for a second, of the time before the kill.
    wait_for(lambda: stack.recovers(photo(1)), what="answers")
    stack.wait()
    check_right(stack.classify(photo(1)), photo(1))


@pytest.mark.parametrize("process", ["bin/tritonserver", "triton_python_backend_stub"])
def test_a_triton_that_hangs_is_started_again(stack: Stack, process: str) -> None:
    """No process dies, so nothing but the supervisor's probe can tell."""
    stack.wait()
    before = stack.id("triton"), stack.inspect("triton")["State"]["StartedAt"]
    pid = stack.pid("triton", process)
    assert pid
    stack.signal(pid, "SIGSTOP")
    wait_for(lambda: stack.pid("triton", process) not in (None, pid), 60, f"another {process}")
    stack.wait()
    # Its container goes on: health check and supervisor do not fight.
    assert (stack.id("triton"), stack.inspect("triton")["State"]["StartedAt"]) == before


def test_a_supervisor_that_hangs_has_its_container_ended_and_started_again(stack: Stack) -> None:
    """Nobody but the health check can tell; Triton itself serves on until then."""
    stack.wait()
    started = stack.inspect("triton")["State"]["StartedAt"]
    pid = stack.pid("triton", "server.triton_alone")
    assert pid
    stack.signal(pid, "SIGSTOP")
    wait_for(lambda: stack.inspect("triton")["State"]["StartedAt"] != started, 120, "a new start")
    stack.wait()


def test_a_model_is_added_without_a_lost_request(stack: Stack) -> None:
    stack.wait()
    repository = Path(stack.variables["MODEL_REPOSITORY"])
    tiny_models.publish(repository, "linear")
    before = stack.id("triton")
    with asking(stack) as answers:
        wait_for(lambda: len(answers) > 20)
        reloaded = run("deploy/reload.sh", variables=stack.environment)
        count = len(answers)
        wait_for(lambda: len(answers) > count + 20)
    assert set(answers) == {200}, reloaded.stdout
    assert stack.id("triton") not in (before, "")
    answer = httpx.get(f"{stack.url}/models", trust_env=False, timeout=30)
    names = [model["name"] for model in answer.json()["models"]]
    assert names == ["bit_cifar10", "linear", "mixer_cifar10", "vit_cifar10"]


def test_a_triton_that_cannot_start_replaces_nothing(stack: Stack) -> None:
    stack.wait()
    repository = Path(stack.variables["MODEL_REPOSITORY"])
    before = stack.id("triton")
    hidden = repository.with_name("hidden")
    hidden.mkdir()
    for folder in [*repository.glob("*/config.pbtxt")]:
        folder.parent.rename(hidden / folder.parent.name)
    try:
        done = run("deploy/reload.sh", check=False, variables=stack.environment)
    finally:
        for folder in hidden.iterdir():
            folder.rename(repository / folder.name)
    assert done.returncode == 1
    assert "holds no model" in done.stdout + done.stderr
    assert "the old one serves on" in done.stderr
    assert stack.id("triton") == before
    stack.wait()  # Triton lists what it sees in the folder, and now the models are there again
    check_right(stack.classify(photo(1)), photo(1))


@contextlib.contextmanager
def asking(stack: Stack) -> Iterator[list[int]]:
    """The statuses of requests that four clients send without a pause."""
    answers: list[int] = []
    done = threading.Event()
    picture = photo(2)

    def ask() -> None:
        with httpx.Client(trust_env=False, timeout=60) as client:
            while not done.is_set():
                kind = {"Content-Type": "image/jpeg"}
                answer = client.post(f"{stack.url}/classify", content=picture, headers=kind)
                answers.append(answer.status_code)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_keys_can_be_asked_for(stack: Stack) -> None:
    made: Callable[..., subprocess.CompletedProcess[str]] = stack.compose
    line = made("run", "--rm", "--no-deps", "--no-TTY", "gateway", "key", "alice").stdout
    assert re.fullmatch(r"alice [0-9a-f]{64}\n", line)
