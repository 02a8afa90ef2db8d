"""The launcher of NVIDIA's image, started with the wheel's Triton and stand-ins around it.

In: a model repository, what stands in for `trtexec`, a folder. Out: a running launcher.
"""

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from server.local_triton.installation import find, make_backends
from server.local_triton.supervisor import ENVIRONMENT, free_port
from tests.stack import DEFAULT_MODEL, status
from tests.waiting import CHECKOUT, terminated, wait_for


class Launched:
    """A running nvidia.py."""

    def __init__(
        self, process: subprocess.Popen[bytes], log: Path, grpc: int, metrics: int, status: int
    ) -> None:
        self.process = process
        self.log = log
        self.grpc = f"127.0.0.1:{grpc}"
        self.metrics_url = f"http://127.0.0.1:{metrics}"
        self.status_url = f"http://127.0.0.1:{status}"

    def says(self, pattern: str) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return re.search(pattern, self.log.read_text()) is not None

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return status(f"{self.status_url}/readyz") == 200

    def metric(self, pattern: str) -> str:
        text = httpx.get(f"{self.status_url}/metrics", trust_env=False).text
        found = re.search(pattern, text, re.MULTILINE)
        return found[1] if found else ""

    def backend_file(self) -> str:
        with triton_grpc.InferenceServerClient(self.grpc) as client:
            return str(client.get_model_config(DEFAULT_MODEL).config.default_model_filename)

    def answers(self) -> bool:
        """Whether a grey image gets probabilities."""
        with triton_grpc.InferenceServerClient(self.grpc) as client:
            config = client.get_model_config(DEFAULT_MODEL).config
            pixels = np.full([1, *config.input[0].dims], 127, np.uint8)
            image = triton_grpc.InferInput("image", pixels.shape, "UINT8")
            image.set_data_from_numpy(pixels)
            answer = client.infer(DEFAULT_MODEL, [image]).as_numpy("probabilities")
        return bool(abs(answer.sum() - 1) < 1e-3)

    def refuses_to_load(self) -> str:
        """What Triton says to somebody on its port who lets it load a model."""
        with (
            triton_grpc.InferenceServerClient(self.grpc) as client,
            pytest.raises(InferenceServerException) as refused,
        ):
            client.load_model(DEFAULT_MODEL)
        return str(refused.value)


def prepare(repository: Path, folder: Path, *, trtexec: str) -> None:
    """Lay out in `folder` a repository with the default model alone, and the stand-ins."""
    copy = folder / "models" / DEFAULT_MODEL
    shutil.copytree(repository / DEFAULT_MODEL, copy)
    (copy / "configs/tensorrt.pbtxt").write_text(
        (copy / "config.pbtxt").read_text().replace("model.onnx", "model.plan")
    )
    programs = folder / "programs"
    programs.mkdir()
    (programs / "trtexec").write_text(trtexec)
    (programs / "nvidia-smi").write_text("#!/bin/sh\necho 9.0\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    (folder / "backends").mkdir()
    make_backends(find(ENVIRONMENT), folder / "backends")


@contextlib.contextmanager
def launched(folder: Path) -> Iterator[Launched]:
    """It runs on what `prepare` has laid out, and ends well."""
    found, programs, log = find(ENVIRONMENT), folder / "programs", folder / "log"
    variables = found.variables()
    variables["PATH"] = f"{programs}:{variables['PATH']}"
    grpc, http, metrics, status_port = (free_port() for _ in range(4))
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "deploy.triton.nvidia"),
                *("--repository", str(folder / "models"), "--engines", str(folder / "engines")),
                *("--served", str(folder / "served"), "--tritonserver", str(found.binary)),
                *("--trtexec", str(programs / "trtexec"), "--address", "127.0.0.1"),
                *("--http-port", str(http), "--grpc-port", str(grpc)),
                *("--metrics-port", str(metrics), "--status-port", str(status_port), "--"),
                f"--backend-directory={folder / 'backends'}",
            ],
            cwd=CHECKOUT,
            env=variables,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    with terminated(process):
        running = Launched(process, log, grpc, metrics, status_port)
        wait_for(running.is_ready, 150, "a ready Triton")  # which may have been started twice
        yield running
