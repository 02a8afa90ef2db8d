"""One checkpoint, two ways to HTTP: by ONNX Runtime, and by XLA and the backend `jax`."""

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from contracts.model_config import parameters, read_config
from reference.config import ConfigError
from reference.serialize import serialize
from tests.stack import Gateway, running_gateway, running_triton

CHECKOUT = Path(__file__).parents[2]
SHIPPED = "mixer_cifar10"
CHECKPOINT = CHECKOUT / "reference/trained" / f"{SHIPPED}.npz"
ONNX = CHECKOUT / "model_repository" / SHIPPED / "1/model.onnx"
WORKER = CHECKOUT / "server/local_triton/backends/jax/worker.py"
TRITON_PYTHON = CHECKOUT / ".venv-triton/bin/python"
pytestmark = pytest.mark.timeout(400)  # programs are compiled, on however busy a machine


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model beside the same one as a program of XLA."""
    repository = tmp_path_factory.mktemp("repository")
    shutil.copytree(CHECKOUT / "model_repository" / SHIPPED, repository / SHIPPED)
    labels = repository / SHIPPED / "labels.txt"
    done = serialize(CHECKPOINT, "xla", repository, labels=labels, max_batch_size=4, onnx=ONNX)
    assert done.largest_difference is not None
    assert done.largest_difference < 1e-5
    stated = [
        parameters(read_config(repository / name / "config.pbtxt")) for name in (SHIPPED, "xla")
    ]
    assert stated[0]["temperature"] == stated[1]["temperature"]
    return repository


@pytest.fixture(scope="module")
def gateway(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway before a Triton that serves both."""
    log = tmp_path_factory.mktemp("log") / "gateway.log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_PLATFORMS", "cpu")
        with (
            running_triton(repository) as triton,
            running_gateway(log, "--triton-url", triton.grpc_url) as gateway,
        ):
            yield gateway


def classify(gateway: Gateway, model: str, image: bytes) -> dict[str, float]:
    answer = httpx.post(
        f"{gateway.url}/classify",
        params={"model": model, "top_k": 10},
        content=image,
        headers={"Content-Type": "image/png"},
        trust_env=False,
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    return {one["label"]: one["probability"] for one in answer.json()["predictions"]}


def test_both_ways_give_the_same_probabilities_over_http(gateway: Gateway) -> None:
    random = np.random.default_rng(0)
    for _ in range(8):
        # Soft shapes, of which the network is surer than of noise.
        small = random.integers(0, 256, (4, 4, 3)).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(small).resize((32, 32), Image.Resampling.BICUBIC).save(buffer, "png")
        expected = classify(gateway, SHIPPED, buffer.getvalue())
        found = classify(gateway, "xla", buffer.getvalue())
        assert found.keys() == expected.keys()
        for label, probability in expected.items():
            assert found[label] == pytest.approx(probability, abs=1e-5)


@pytest.mark.parametrize(
    ("python", "says"),
    [(sys.executable, "model.jax is no program of jax.export"), (str(TRITON_PYTHON), "has no JAX")],
)
def test_a_program_that_cannot_be_loaded_is_said_in_one_line(
    tmp_path: Path, python: str, says: str
) -> None:
    if not Path(python).exists():
        pytest.skip(f"no {python}: `make serve` makes it")
    file = tmp_path / "model.jax"
    file.write_bytes(b"no program")
    done = subprocess.run(
        [python, WORKER, file, "4", "0"], capture_output=True, timeout=120, check=True
    )
    (line,) = done.stdout.splitlines()
    assert says in json.loads(line)["error"]


def test_another_network_s_onnx_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    golden = CHECKOUT / "tests/golden/mixer_tiny/checkpoint.npz"
    with pytest.raises(ConfigError, match="gives other probabilities, by up to"):
        serialize(golden, "other", tmp_path, onnx=ONNX)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match=re.escape("was trained at 32, not 48")):
        serialize(CHECKPOINT, "other", tmp_path, image_size=48)
