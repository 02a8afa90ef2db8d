"""The launcher of NVIDIA's image, run with the wheel's Triton.

NVIDIA's image, trtexec and a GPU cannot be had in CI: `trtexec` and `nvidia-smi` are programs that
stand in for them, and configs/tensorrt.pbtxt names the wheel's backend. What is tested is all the
rest: the order of things, the cache, the switch under load, what a failed build leaves.
"""

import contextlib
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from deploy.triton.engines import trtexec_flags
from deploy.triton.nvidia import models_of
from export.to_tensorrt import container_command, read_source
from server.local_triton.installation import find, make_backends
from server.local_triton.supervisor import ENVIRONMENT, free_port
from tests.stack import DEFAULT_MODEL, status
from tests.waiting import CHECKOUT, wait_for

TRTEXEC = """#!{python}
import pathlib, shutil, sys, time
flags = dict(flag.lstrip("-").partition("=")[::2] for flag in sys.argv[1:])
print("[I] building", flags["onnx"], flush=True)
while not pathlib.Path({go!r}).exists():
    time.sleep(0.02)
if pathlib.Path({go!r}).read_text() == "fail":
    sys.exit("[E] this graph is refused")
shutil.copy(flags["onnx"], flags["saveEngine"])
"""


class Launched:
    """A running nvidia.py."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, http: int) -> None:
        self.process = process
        self.log = log
        self.url = f"http://127.0.0.1:{http}/v2"

    def says(self, pattern: str) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return re.search(pattern, self.log.read_text()) is not None

    def backend_file(self) -> str:
        config = httpx.get(f"{self.url}/models/{DEFAULT_MODEL}/config", trust_env=False).json()
        return str(config["default_model_filename"])

    def answers(self) -> bool:
        """Whether a grey image gets probabilities."""
        config = httpx.get(f"{self.url}/models/{DEFAULT_MODEL}/config", trust_env=False).json()
        shape = [1, *map(int, config["input"][0]["dims"])]
        image = np.full(shape, 127, np.uint8)
        request = {
            "inputs": [
                {
                    "name": "image",
                    "datatype": "UINT8",
                    "shape": shape,
                    "data": image.ravel().tolist(),
                }
            ]
        }
        url = f"{self.url}/models/{DEFAULT_MODEL}/infer"
        answer = httpx.post(url, content=json.dumps(request), trust_env=False)
        assert answer.status_code == 200, answer.text
        (probabilities,) = [o for o in answer.json()["outputs"] if o["name"] == "probabilities"]
        return bool(abs(sum(probabilities["data"]) - 1) < 1e-3)


Launch = Callable[[], contextlib.AbstractContextManager[Launched]]


@pytest.fixture
def launch(model_repository: Path, tmp_path: Path) -> Launch:
    """Starts nvidia.py on a repository with one model, stand-ins around it."""
    repository = tmp_path / "models"
    shutil.copytree(model_repository / DEFAULT_MODEL, repository / DEFAULT_MODEL)
    config = repository / DEFAULT_MODEL / "config.pbtxt"
    (config.parent / "configs/tensorrt.pbtxt").write_text(
        config.read_text().replace("model.onnx", "model.plan")
    )
    programs = tmp_path / "programs"
    programs.mkdir()
    go = str(tmp_path / "go")
    (programs / "trtexec").write_text(TRTEXEC.format(python=sys.executable, go=go))
    (programs / "nvidia-smi").write_text("#!/bin/sh\necho 9.0\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    found = find(ENVIRONMENT)
    backends = tmp_path / "backends"
    backends.mkdir()
    make_backends(found, backends)
    variables = found.variables()
    variables["PATH"] = f"{programs}:{variables['PATH']}"
    http = free_port()

    @contextlib.contextmanager
    def run() -> Iterator[Launched]:
        log = tmp_path / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "deploy.triton.nvidia"),
                    *("--repository", str(repository), "--engines", str(tmp_path / "engines")),
                    *("--served", str(tmp_path / "served"), "--tritonserver", str(found.binary)),
                    *("--trtexec", str(programs / "trtexec"), "--address", "127.0.0.1"),
                    *("--http-port", str(http), "--grpc-port", str(free_port())),
                    *("--metrics-port", str(free_port()), "--"),
                    f"--backend-directory={backends}",
                ],
                cwd=CHECKOUT,
                env=variables,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        launched = Launched(process, log, http)
        try:
            wait_for(lambda: launched.says("Started HTTPService"))
            wait_for(lambda: status(f"{launched.url}/health/ready") == 200)
            yield launched
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            finally:
                process.kill()
        assert process.returncode == 0

    return run


def test_serves_at_once_and_switches_to_the_engine_without_a_gap(
    launch: Launch, tmp_path: Path
) -> None:
    with launch() as triton:
        wait_for(lambda: triton.says("trtexec: .*building"))
        assert triton.backend_file() == "model.onnx"
        assert triton.answers()
        (tmp_path / "go").write_text("")
        # Every answer on the way is right.
        wait_for(lambda: triton.answers() and triton.says("TensorRT serves it now"))
        assert triton.backend_file() == "model.plan"
        assert triton.answers()
    (tmp_path / "programs/trtexec").write_text("#!/bin/sh\nexit 1\n")
    with launch() as triton:  # from the cache, and no model can be loaded from outside any more
        assert triton.says("TensorRT, from the cache")
        assert triton.backend_file() == "model.plan"
        assert triton.answers()
        load = f"{triton.url}/repository/models/{DEFAULT_MODEL}/load"
        assert httpx.post(load, json={}, trust_env=False).status_code != 200


def test_a_model_whose_engine_cannot_be_built_stays_with_onnx_runtime(
    launch: Launch, tmp_path: Path
) -> None:
    (tmp_path / "go").write_text("fail")
    with launch() as triton:
        wait_for(lambda: triton.says("this graph is refused; it stays with ONNX Runtime"))
        assert triton.backend_file() == "model.onnx"
        assert triton.answers()
    assert not list((tmp_path / "engines").glob("*/*.plan"))
    assert not list((tmp_path / "engines").glob(".*"))


def test_without_a_gpu_it_says_so_and_serves(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "programs/nvidia-smi").unlink()
    with launch() as triton:
        assert triton.says("no NVIDIA GPU is visible in this container: ONNX Runtime serves")
        assert triton.answers()


def test_it_builds_what_export_would_build(model_repository: Path) -> None:
    """Both tell trtexec the same of a model that `export` has published."""
    (model,) = [m for m in models_of(model_repository) if m.name == DEFAULT_MODEL]
    ours = trtexec_flags(model, Path(f"/models/{DEFAULT_MODEL}/1/model.plan.partial"))
    source = read_source(model_repository, DEFAULT_MODEL)
    command = shlex.split(container_command(model_repository, source))[-1]
    theirs = [word for word in shlex.split(command.partition("&&")[0]) if word.startswith("--")]
    assert [flag.replace(str(model_repository), "/models") for flag in ours] == theirs


def test_what_the_dockerfile_copies_is_enough(tmp_path: Path) -> None:
    """NVIDIA's image has Python's own library and those files, nothing else of this project."""
    stage = (CHECKOUT / "Dockerfile").read_text().partition(" AS triton-nvidia\n")[2]
    stage = stage.partition("\nFROM ")[0]
    root = tmp_path / "opt/mixer-serving"
    for names, target in re.findall(r"^COPY (.+) (/opt/mixer-serving/\S+)$", stage, re.MULTILINE):
        for name in names.split():
            source, goal = CHECKOUT / name, tmp_path / target.lstrip("/")
            if source.is_dir():
                shutil.copytree(source, goal)
            else:
                goal.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, goal)
    started = re.search(r"^CMD (\[.*\])$", stage, re.MULTILINE)
    assert started
    _, *arguments = json.loads(started[1])
    done = subprocess.run(
        [sys.executable, "-E", "-s", "-S", *arguments, "--help"],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "--engines" in done.stdout
