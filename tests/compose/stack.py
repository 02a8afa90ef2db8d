"""A stack of this project's containers for the tests: started, asked, broken, removed.

Images and containers are those of docker-compose.yml, under a project name and ports of their own.
"""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from contracts.images.decoding import read
from contracts.repository import PROBABILITIES
from contracts.resizing import ResizeRule
from export.graph import open_graph
from server.local_triton.supervisor import free_port
from tests.stack import status
from tests.waiting import CHECKOUT, wait_for

# What Dockerfile names by its digest, by the name that it has where it was made instead of pulled.
BASE_IMAGE = "python:3.11-slim-bookworm"
SERVICES = ("gateway", "triton")
MODEL = CHECKOUT / "model_repository/mixer_cifar10"


def missing() -> str:
    """What this machine lacks to run containers; "" if nothing."""
    if shutil.which("docker") is None or run("docker", "info", check=False).returncode:
        return "needs a running Docker Engine"
    if run("docker", "compose", "version", check=False).returncode:
        return "needs Docker Compose 2.24 or later"
    if run("docker", "image", "inspect", BASE_IMAGE, check=False).returncode:
        pulled = run("docker", "pull", BASE_IMAGE, check=False)
        if pulled.returncode:
            return f"needs the image {BASE_IMAGE}, which cannot be pulled here"
    return ""


def run(
    *command: str, check: bool = True, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A finished command; its output is shown where it fails."""
    done = subprocess.run(
        command,
        cwd=CHECKOUT,
        env=os.environ | dict(variables or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done


@dataclass(frozen=True)
class Stack:
    """One project of docker compose."""

    project: str
    port: int
    files: Sequence[Path] = ()  # beside docker-compose.yml
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def compose(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`docker compose ARGUMENTS`, on this stack."""
        return run("docker", "compose", *arguments, check=check, variables=self.environment)

    @property
    def environment(self) -> dict[str, str]:
        files = [CHECKOUT / "docker-compose.yml", *self.files]
        return {
            "COMPOSE_PROJECT_NAME": self.project,
            "COMPOSE_FILE": os.pathsep.join(map(str, files)),
            "GATEWAY_PORT": str(self.port),
            "PYTHON_IMAGE": BASE_IMAGE,
            **self.variables,
        }

    def id(self, service: str) -> str:
        return self.compose("ps", "--all", "--quiet", service).stdout.strip()

    def inspect(self, service: str) -> Any:
        return json.loads(run("docker", "inspect", self.id(service)).stdout)[0]

    def pid(self, service: str, what: str) -> int | None:
        """The host's number of a process in a container, by a part of its command line."""
        container = self.id(service)
        shown = run("docker", "top", container, "-eo", "pid,args", check=False).stdout
        found = [
            line.split(maxsplit=1) for line in shown.splitlines()[1:] if what in line.split()[1:2]
            or (what in line and "docker-init" not in line)
        ]  # fmt: skip
        return int(found[0][0]) if found else None

    def signal(self, pid: int, name: str) -> None:
        """Send a signal to a process of the host, as a root of the host could."""
        code = f"import os, signal; os.kill({pid}, signal.{name})"
        run(
            *("docker", "run", "--rm", "--pid", "host", "--user", "0", "--cap-drop", "ALL"),
            *("--cap-add", "KILL", "--entrypoint", "python3", f"{self.project}-gateway"),
            *("-c", code),
        )

    def serves(self) -> bool:
        return status(f"{self.url}/readyz") == 200

    def wait(self, seconds: float = 60.0) -> None:
        wait_for(self.serves, seconds, "a ready stack")

    def ask(self, image: bytes, model: str = "") -> httpx.Response:
        """The answer about one image, with all ten classes."""
        query = {"top_k": "10"} | ({"model": model} if model else {})
        kind = {"Content-Type": "image/jpeg"}
        return httpx.post(
            f"{self.url}/classify", params=query, content=image, headers=kind, trust_env=False,
            timeout=30,
        )  # fmt: skip

    def classify(self, image: bytes, model: str = "") -> list[dict[str, Any]]:
        """All ten predictions of one image."""
        answer = self.ask(image, model)
        assert answer.status_code == 200, answer.text
        predictions: list[dict[str, Any]] = answer.json()["predictions"]
        return predictions

    def recovers(self, image: bytes) -> bool:
        """Whether an image is answered; right after a kill nobody may be listening."""
        try:
            return self.ask(image).status_code == 200
        except httpx.TransportError:
            return False

    def leftovers(self) -> list[str]:
        """Containers, networks and volumes of this project."""
        label = f"label=com.docker.compose.project={self.project}"
        return [
            line
            for kind in (("ps", "--all"), ("network", "ls"), ("volume", "ls"))
            for line in run("docker", *kind, "--quiet", "--filter", label).stdout.splitlines()
        ]


@contextlib.contextmanager
def running_stack(folder: Path, *files: Path, **variables: str) -> Iterator[Stack]:
    """The stack as anybody starts it, on a copy of the model repository; at the end all is gone."""
    repository = folder / "models"
    shutil.copytree(MODEL.parent, repository)
    repository.chmod(0o755)
    stack = Stack(
        # Docker compose's own rule for names.
        f"mixer-serving-test-{os.getpid()}-{folder.name.replace('_', '-').lower()}",
        free_port(),
        files,
        {"MODEL_REPOSITORY": str(repository), **variables},
    )
    try:
        stack.compose("build", *SERVICES)
        stack.compose("up", "--detach", "--wait", *SERVICES)
        yield stack
    finally:
        stack.compose("--profile", "*", "down", "--volumes", "--rmi", "local")
    assert stack.leftovers() == []


def expected(image: bytes) -> npt.NDArray[np.float32]:
    """The shipped model's probabilities of an image, without a server: float32 [10]."""
    pixels = read(image, ResizeRule(32, 32))
    session = open_graph(MODEL / "1/model.onnx")
    answer: npt.NDArray[np.float32] = session.run([PROBABILITIES], {"image": pixels[None]})[0][0]
    return answer


def check_right(predictions: list[dict[str, Any]], image: bytes) -> None:
    """Hold that predictions are those of the model itself, labels and order included."""
    labels = (MODEL / "labels.txt").read_text().split()
    probabilities = expected(image)
    assert [p["index"] for p in predictions] == np.argsort(-probabilities).tolist()
    for prediction in predictions:
        assert prediction["label"] == labels[prediction["index"]]
        assert abs(prediction["probability"] - probabilities[prediction["index"]]) < 1e-5
