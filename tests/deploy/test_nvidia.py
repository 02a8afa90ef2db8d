"""The launcher of NVIDIA's image, run with the wheel's Triton.

NVIDIA's image, trtexec and a GPU cannot be had in CI: `trtexec` and `nvidia-smi` are programs that
stand in for them, and configs/tensorrt.pbtxt names the wheel's backend. What is tested is all the
rest: the order of things, the cache, the switch under load, what a failed build leaves.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import onnx
import pytest

from contracts.cpu_engines import state_engine, stated_engine
from contracts.model_config import config_text, model_config_pb2, read_config
from deploy.triton.engines import trtexec_flags
from deploy.triton.nvidia import models_of
from export.to_tensorrt import container_command, read_source
from server.local_triton.stubs import children
from tests.deploy.launcher import Launched, launched, prepare
from tests.stack import DEFAULT_MODEL, running_gateway
from tests.waiting import CHECKOUT, wait_for

pytestmark = pytest.mark.timeout(400)  # a Triton is started up to four times
TRTEXEC = """#!{python}
import pathlib, shutil, sys, time
flags = dict(flag.lstrip("-").partition("=")[::2] for flag in sys.argv[1:])
print("[I] building", flags["onnx"], flush=True)
while not pathlib.Path({go!r}).exists():
    time.sleep(0.02)
if pathlib.Path({go!r}).read_text() == "fail":
    sys.exit("[E] this graph is refused")
go = pathlib.Path({go!r}).read_text()
plan = pathlib.Path(flags["saveEngine"])
if go == "nonsense":
    plan.write_text(go)
else:
    shutil.copy({other!r} if go == "other" else flags["onnx"], plan)
"""


def _other() -> bytes:
    """The default model with another bias of its classes: as large, and answers otherwise."""
    model = onnx.load(CHECKOUT / "model_repository" / DEFAULT_MODEL / "1/model.onnx")
    [bias] = [each for each in model.graph.initializer if each.name == "classifier.head.bias"]
    values = onnx.numpy_helper.to_array(bias).copy()
    values[0] += 5
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    data: bytes = model.SerializeToString()
    return data


OTHER = _other()


Launch = Callable[[], contextlib.AbstractContextManager[Launched]]


@pytest.fixture
def launch(model_repository: Path, tmp_path: Path) -> Launch:
    """Starts nvidia.py on a repository with one model, stand-ins around it."""
    go, other = str(tmp_path / "go"), tmp_path / "other.onnx"
    other.write_bytes(OTHER)
    trtexec = TRTEXEC.format(python=sys.executable, go=go, other=str(other))
    prepare(model_repository, tmp_path, trtexec=trtexec)
    return lambda: launched(tmp_path)


def test_serves_at_once_and_switches_to_the_engine_without_a_gap(
    launch: Launch, tmp_path: Path
) -> None:
    with launch() as triton:
        wait_for(lambda: triton.says("trtexec: .*building"))
        assert triton.backend_file() == "model.onnx"
        assert triton.answers()
        assert triton.metric(r'^mixer_triton_engine{.*state="(\w+)"} 1') == "missing"
        assert "restricted" in triton.refuses_to_load()
        (tmp_path / "go").write_text("")
        # Every answer on the way is right.
        wait_for(lambda: triton.answers() and triton.says("TensorRT serves it now"))
        assert triton.backend_file() == "model.plan"
        assert triton.answers()
        assert triton.metric(r'^mixer_triton_engine{.*state="(\w+)"} 1') == "served"
        assert "restricted" in triton.refuses_to_load()
    (tmp_path / "programs/trtexec").write_text("#!/bin/sh\nexit 1\n")
    with launch() as triton:  # from the cache, and no model can be loaded from outside any more
        assert triton.says("TensorRT, from the cache")
        assert triton.backend_file() == "model.plan"
        assert triton.answers()
        assert "not allowed" in triton.refuses_to_load()


def test_a_model_whose_engine_cannot_be_built_stays_with_onnx_runtime(
    launch: Launch, tmp_path: Path
) -> None:
    (tmp_path / "go").write_text("fail")
    with launch() as triton:
        wait_for(lambda: triton.says("this graph is refused; it stays with ONNX Runtime"))
        assert triton.backend_file() == "model.onnx"
        assert triton.answers()
        assert triton.metric(r'^mixer_triton_engine{.*state="(\w+)"} 1') == "failed"
    assert not list((tmp_path / "engines").glob("*/*.plan"))
    assert not list((tmp_path / "engines").glob(".*"))


def test_without_a_gpu_it_says_so_and_serves(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "programs/nvidia-smi").unlink()
    with launch() as triton:
        assert triton.says("no NVIDIA GPU is visible in this container: ONNX Runtime serves")
        assert triton.answers()


def test_onnx_runtime_serves_what_asks_for_openvino(launch: Launch, tmp_path: Path) -> None:
    """OpenVINO's backend of this image pads every batch, and leaves a GPU alone."""
    (tmp_path / "programs/nvidia-smi").unlink()
    path = tmp_path / "models" / DEFAULT_MODEL / "config.pbtxt"
    config = read_config(path)
    state_engine(config, "openvino")
    path.write_text(config_text(config))
    path.chmod(0o444)
    with launch() as triton:
        assert triton.says("ONNX Runtime instead of OpenVINO")
        assert triton.answers()
        served = read_config(tmp_path / "served" / DEFAULT_MODEL / "config.pbtxt")
        assert stated_engine(served) == "onnxruntime"
        kinds = [group.kind for group in served.instance_group]
        assert kinds == [model_config_pb2.ModelInstanceGroup.KIND_AUTO]
    assert stated_engine(read_config(path)) == "openvino"


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
        goal = tmp_path / target.lstrip("/")
        for source in (found for name in names.split() for found in CHECKOUT.glob(name)):
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


def test_an_engine_that_triton_refuses_is_not_kept(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "go").write_text("nonsense")
    with launch() as triton:
        wait_for(lambda: triton.says("Triton does not serve it: .*; it stays with ONNX Runtime"))
        assert triton.backend_file() == "model.onnx"
        assert triton.answers()
        assert triton.is_ready()
    assert not list((tmp_path / "engines").glob("*/*.plan"))


def test_an_engine_that_answers_otherwise_is_not_kept(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "go").write_text("other")
    with launch() as triton:
        wait_for(
            lambda: triton.says("does not serve it: gives class .*, which it gave when it was")
        )
        assert triton.backend_file() == "model.onnx"
        assert triton.answers()
    assert not list((tmp_path / "engines").glob("*/*.plan"))


@pytest.mark.parametrize("harm", ["nonsense", "other"])
def test_an_engine_from_the_cache_that_fails_is_let_go(
    launch: Launch, tmp_path: Path, harm: str
) -> None:
    (tmp_path / "go").write_text("")
    with launch() as triton:
        wait_for(lambda: triton.says("TensorRT serves it now"))
    (plan,) = (tmp_path / "engines").glob("*/*.plan")
    plan.write_bytes(b"nonsense" if harm == "nonsense" else OTHER)
    (tmp_path / "go").write_text("fail")
    with launch() as triton:  # it is ready again once it has gone back
        assert triton.says("goes back to ONNX Runtime|starting with ONNX Runtime, without engines")
        assert triton.backend_file() == "model.onnx"
        assert triton.answers()
    assert not plan.exists()


def test_engines_can_be_built_before_anything_is_served(launch: Launch, tmp_path: Path) -> None:
    def build() -> subprocess.CompletedProcess[str]:
        flags = ("--repository", str(tmp_path / "models"), "--engines", str(tmp_path / "engines"))
        programs = tmp_path / "programs"
        return subprocess.run(
            [
                *(sys.executable, "-m", "deploy.triton.nvidia", *flags, "--build-only"),
                *("--trtexec", str(programs / "trtexec")),
            ],
            cwd=CHECKOUT, env={"PATH": f"{programs}:/usr/bin:/bin"}, capture_output=True,
            text=True, check=False,
        )  # fmt: skip

    (tmp_path / "go").write_text("fail")
    assert build().returncode == 1
    (tmp_path / "go").write_text("")
    assert build().returncode == 0
    (plan,) = (tmp_path / "engines").glob("*/*.plan")
    built = plan.stat().st_mtime_ns
    assert build().returncode == 0
    assert plan.stat().st_mtime_ns == built
    with launch() as triton:
        assert triton.says("TensorRT, from the cache")
        assert triton.answers()


def test_a_gateway_lists_the_models_while_loading_is_closed(launch: Launch, tmp_path: Path) -> None:
    with launch() as triton:
        wait_for(lambda: triton.says("trtexec: .*building"))
        flags = ("--triton-url", triton.grpc, "--default-model", DEFAULT_MODEL)
        with running_gateway(tmp_path / "gateway.log", *flags) as gateway:
            models = httpx.get(f"{gateway.url}/models", trust_env=False).json()["models"]
            assert [model["name"] for model in models] == [DEFAULT_MODEL]


def test_a_triton_that_hangs_is_started_again(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "programs/nvidia-smi").unlink()
    with launch() as triton:
        (tritonserver,) = children(triton.process.pid)
        os.kill(tritonserver, signal.SIGSTOP)
        wait_for(lambda: not triton.is_ready(), 15, "a Triton that is not ready")
        wait_for(triton.is_ready, 60, "a ready Triton")
        assert triton.metric(r'^mixer_triton_restarts_total{reason="hung"} (\d+)') == "1"
        assert triton.answers()
