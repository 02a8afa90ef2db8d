"""The chart's pods, run by podman: what Helm renders answers a photograph, and bears a death.

`podman kube play` takes Kubernetes' own objects, so these are the real pods: the init container
that brings the models, users, read-only roots, capabilities, volumes and limits. It knows no
Service: the name that it would have is given to the gateway's pod as `hostAliases`. The images are
those that Docker builds here.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from server.local_triton.supervisor import free_port
from tests.compose.stack import BASE_IMAGE, check_right, missing, run
from tests.deploy.chart import CASES, one, render
from tests.photos import photo
from tests.stack import status
from tests.waiting import wait_for

PROJECT = f"mixer-serving-podman-{os.getpid()}"
IMAGES = f"localhost/{PROJECT}"
NAME = "prod-mixer-serving"


def lacking() -> str:
    """What this machine lacks; "" if nothing."""
    if os.geteuid() or not shutil.which("podman") or not shutil.which("catatonit"):
        return "needs root, and podman and catatonit (Debian's packages of these names)"
    return missing()


pytestmark = [
    pytest.mark.skipif(bool(lacking()), reason=lacking()),
    pytest.mark.timeout(600),
]


@dataclass(frozen=True)
class Podman:
    """podman with a configuration of its own."""

    folder: Path

    def __call__(self, *arguments: str, check: bool = True) -> str:
        variables = {"CONTAINERS_CONF": str(self.folder / "containers.conf")}
        return run("podman", *arguments, check=check, variables=variables).stdout

    def play(self, pod: dict[str, Any]) -> None:
        """Start what a Deployment describes."""
        file = self.folder / f"{pod['metadata']['name']}.yaml"
        file.write_text(yaml.safe_dump(pod))
        self("kube", "play", "--network", PROJECT, str(file))

    def inspect(self, name: str) -> Any:
        return json.loads(self("inspect", name))[0]


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """podman with the images and a network; at the end all is gone."""
    folder = tmp_path_factory.mktemp("podman")
    # podman would ask for more files and processes than a container in a machine may have. Its own
    # runtime refuses a machine with control groups of both versions; Docker's does not.
    engine = (
        "" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else '[engine]\nruntime="runc"\n'
    )
    (folder / "containers.conf").write_text(
        f'[containers]\ndefault_ulimits = ["nofile=16384:16384", "nproc=16384:16384"]\n{engine}'
    )
    podman = Podman(folder)
    try:
        for target in ("gateway", "triton", "models"):
            load(target)
        podman("network", "create", PROJECT)
        yield podman
    finally:
        for part in ("gateway", "triton"):
            podman("pod", "rm", "--force", f"{NAME}-{part}-pod-0", check=False)
        podman("network", "rm", "--force", PROJECT, check=False)
        for target in ("gateway", "triton", "models"):
            podman("image", "rm", "--force", f"{IMAGES}/{target}:0.2.0", check=False)
            run("docker", "image", "rm", "--force", f"{IMAGES}/{target}:0.2.0", check=False)


def load(target: str) -> None:
    """Build an image with Docker and hand it to podman."""
    tag = f"{IMAGES}/{target}:0.2.0"
    base = f"PYTHON_IMAGE={BASE_IMAGE}"
    run("docker", "build", "--quiet", "--build-arg", base, "--target", target, "--tag", tag, ".")
    with subprocess.Popen(["docker", "save", tag], stdout=subprocess.PIPE) as saving:
        subprocess.run(["podman", "load", "--quiet"], stdin=saving.stdout, check=True)
    assert saving.returncode == 0


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    """What the chart makes for the wheel's Triton: one replica of each part."""
    values = CASES["values-wheel"] | {"images": IMAGES, "gateway": {"replicas": 1}}
    return render(values | {"triton": values["triton"] | {"replicas": 1}})


def adapted(deployment: dict[str, Any], ports: dict[int, int]) -> dict[str, Any]:
    """As podman must have it; the containers, their users, rights and volumes stay as they are."""
    spec = deployment["spec"]["template"]["spec"]
    # A Deployment's is Always, which podman 4.3 takes to be meant for init containers too.
    spec["restartPolicy"] = "OnFailure"
    for port in spec["containers"][0]["ports"]:
        port |= {"hostIP": "127.0.0.1", "hostPort": ports[port["containerPort"]]}
    return deployment


@pytest.fixture(scope="module")
def url(podman: Podman, objects: list[dict[str, Any]]) -> str:
    """The address of the gateway's pod."""
    ports = {port: free_port() for port in (8000, 8001, 8002, 8003)}
    podman.play(adapted(one(objects, "Deployment", "triton"), ports))
    triton = f"http://127.0.0.1:{ports[8003]}"
    wait_for(lambda: status(f"{triton}/readyz") == 200, 120, "a ready Triton")
    infra = podman.inspect(f"{NAME}-triton-pod-0")["InfraContainerID"]
    address = podman.inspect(infra)["NetworkSettings"]["Networks"][PROJECT]["IPAddress"]
    gateway = adapted(one(objects, "Deployment", "gateway"), ports)
    # The Service of this name.
    gateway["spec"]["template"]["spec"]["hostAliases"] = [
        {"ip": address, "hostnames": [one(objects, "Service", "triton")["metadata"]["name"]]}
    ]
    podman.play(gateway)
    url = f"http://127.0.0.1:{ports[8000]}"
    wait_for(lambda: status(f"{url}/readyz") == 200, 120, "a ready gateway")
    return url


def classified(url: str) -> httpx.Response:
    return httpx.post(
        f"{url}/classify", params={"top_k": 10}, content=photo(1), trust_env=False, timeout=30
    )


def test_the_pods_answer_a_photograph(url: str) -> None:
    answer = classified(url)
    assert answer.status_code == 200, answer.text
    check_right(answer.json()["predictions"], photo(1))


@pytest.mark.parametrize("part", ["gateway", "triton"])
def test_a_pods_processes_are_as_closed_as_the_chart_says(
    podman: Podman, url: str, part: str
) -> None:
    assert url
    name = f"{NAME}-{part}-pod-0-{part}"
    pid = podman.inspect(name)["State"]["Pid"]
    told = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    assert set(told["Uid"].split()) == {"10001"}
    assert int(told["CapEff"], 16) == int(told["CapBnd"], 16) == 0
    assert told["NoNewPrivs"] == "1"
    assert told["Seccomp"] == "2"
    mounts = Path(f"/proc/{pid}/mounts").read_text().splitlines()
    (root,) = (line.split()[3] for line in mounts if line.split()[1] == "/")
    assert "ro" in root.split(",")


def test_a_tritonserver_that_dies_is_started_again_and_the_pod_lives(
    podman: Podman, url: str
) -> None:
    name = f"{NAME}-triton-pod-0-triton"
    before = podman.inspect(name)["State"]

    def tritonservers() -> list[int]:
        processes = map(str.split, podman("top", name, "hpid", "comm").splitlines())
        return [int(pid) for pid, *what in processes if what == ["tritonserver"]]

    (killed,) = tritonservers()
    os.kill(killed, signal.SIGKILL)
    # How long it is away, and whether a request sees that, is for the machine to say.
    wait_for(lambda: set(tritonservers()) - {killed}, what="another tritonserver")
    wait_for(lambda: classified(url).status_code == 200, what="a Triton that serves again")
    assert podman.inspect(name)["State"]["Pid"] == before["Pid"]
