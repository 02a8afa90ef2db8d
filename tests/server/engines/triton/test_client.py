"""The gateway when Triton dies, hangs, comes back, or serves models that break the contract."""

import io
import os
import signal
import threading
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from server.local_triton.supervisor import LocalTriton
from tests import stack, tiny_models
from tests.photos import photo
from tests.stack import (
    DEFAULT_MODEL,
    Asker,
    Gateway,
    check_same,
    running_gateway,
    running_stack,
    running_triton,
    status,
)
from tests.waiting import frozen, wait_for

RAW = {"Content-Type": "image/jpeg"}
IMAGE = photo(0, 64, 48)


def classify(gateway: Gateway, query: str = "", image: bytes = IMAGE) -> httpx.Response:
    return stack.classify(gateway, image, query)


def test_triton_killed_is_503_and_then_right_again(model_repository: Path, tmp_path: Path) -> None:
    with running_stack(model_repository, tmp_path / "log") as (triton, gateway):
        right = classify(gateway).json()["predictions"]
        answers: list[httpx.Response] = []
        enough = threading.Event()

        def told(response: httpx.Response, _seconds: float) -> None:
            answers.append(response)

        # `linear` waits 50 ms in Triton's queue, so that requests are under way at the kill.
        askers = [Asker(gateway, IMAGE, enough, told, query="?model=linear") for _ in range(8)]
        for asker in askers:
            asker.start()
        try:
            wait_for(lambda: len(answers) >= 16)
            assert triton.pid
            os.kill(triton.pid, signal.SIGKILL)
            wait_for(lambda: any(a.status_code == 503 for a in answers), what="a 503")
            recovered = wait_for(
                lambda: a if (a := classify(gateway)).status_code == 200 else None, what="a 200"
            )
        finally:
            enough.set()
            for asker in askers:
                asker.join()
        check_same(recovered.json()["predictions"], right)
        assert {answer.status_code for answer in answers} == {200, 503}
        refused = [answer for answer in answers if answer.status_code == 503]
        assert all(answer.headers["retry-after"] == "1" for answer in refused)
        wait_for(lambda: status(f"{gateway.url}/readyz") == 200, what="ready again")


def test_a_hanging_triton_is_504_within_the_deadline(
    model_repository: Path, tmp_path: Path
) -> None:
    with (
        running_triton(model_repository) as triton,
        running_gateway(
            tmp_path / "log",
            *("--triton-url", triton.grpc_url, "--default-model", DEFAULT_MODEL),
            *("--request-timeout", "0.5"),
        ) as gateway,
    ):

        def answered() -> httpx.Response | None:
            """In time, which a busy machine may miss."""
            response = classify(gateway)
            return response if response.status_code == 200 else None

        right = wait_for(answered, what="a 200").json()["predictions"]
        assert triton.pid
        with frozen(triton.pid):
            response = classify(gateway)
        assert response.status_code == 504
        assert response.json()["type"].endswith(":deadline-passed")
        assert "0.5 s" in response.json()["detail"]
        again = wait_for(answered, what="a 200 again")
        check_same(again.json()["predictions"], right)


def test_a_gateway_before_its_triton_answers_503_and_finds_it(
    model_repository: Path, tmp_path: Path
) -> None:
    with running_triton(model_repository) as triton:
        url = triton.grpc_url
    flags = ("--triton-url", url, "--default-model", DEFAULT_MODEL)
    with running_gateway(tmp_path / "log", *flags, ready=False) as gateway:
        assert status(f"{gateway.url}/livez") == 200
        for response in (
            classify(gateway),
            httpx.get(f"{gateway.url}/readyz", trust_env=False),
            httpx.get(f"{gateway.url}/models", trust_env=False),
        ):
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"
            assert response.json()["type"].endswith(":triton-away")
        wait_for(lambda: "--with-triton starts one here" in gateway.log.read_text())
        with running_triton(model_repository, grpc_port=int(url.rpartition(":")[2])):
            wait_for(lambda: status(f"{gateway.url}/readyz") == 200, what="a Triton that is found")
            assert classify(gateway).status_code == 200


def test_a_missing_default_model_is_reported_and_not_ready(
    triton: LocalTriton, tmp_path: Path
) -> None:
    flags = ("--triton-url", triton.grpc_url, "--default-model", "petz")
    with running_gateway(tmp_path / "log", *flags, ready=False) as gateway:
        missing = "there is no default model 'petz'"
        wait_for(lambda: missing in gateway.log.read_text(), what="a warning")
        response = httpx.get(f"{gateway.url}/readyz", trust_env=False)
        assert response.status_code == 503
        assert "there is no model 'petz'" in response.json()["detail"]
        assert classify(gateway, "?model=linear").status_code == 200
        assert classify(gateway).status_code == 404
        assert gateway.log.read_text().count(missing) == 1


@pytest.fixture(scope="module")
def odd_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that break the contract, each in its own way, and a default that keeps it."""
    repository = tmp_path_factory.mktemp("odd")
    tiny_models.publish(repository, "linear")
    tiny_models.publish(repository, "stretched", parameters={"resize": "stretch"})

    not_a_number = tiny_models.publish(repository, "not_a_number") / tiny_models.MODEL_FILE
    replace(not_a_number, "half", np.array(0, np.float32))
    # White pixels only overflow: the probe and ordinary images do not.
    overflowing = tiny_models.publish(repository, "overflowing") / tiny_models.MODEL_FILE
    shape = (tiny_models.SIZE * tiny_models.SIZE * 3, tiny_models.CLASSES)
    replace(overflowing, "weights", np.full(shape, 2e35, np.float32))

    broken = tiny_models.publish(repository, "broken") / tiny_models.MODEL_FILE
    broken.write_bytes(b"no graph")

    unlabelled = tiny_models.publish(repository, "unlabelled") / "config.pbtxt"
    unlabelled.write_text(unlabelled.read_text().replace('label_filename: "labels.txt"', ""))
    renamed = tiny_models.publish(repository, "no_probabilities") / "config.pbtxt"
    text = renamed.read_text()
    at = text.index('{ name: "probabilities"')
    renamed.write_text(text[: text.rindex(",", 0, at)] + text[text.index("}", at) + 1 :])
    return repository


def replace(
    path: Path, name: str, value: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
) -> None:
    """Exchange one weight of an ONNX file."""
    model = onnx.load(path)
    found = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    found.CopyFrom(numpy_helper.from_array(value, name))
    onnx.save(model, path)


def test_models_that_break_the_contract(odd_repository: Path, tmp_path: Path) -> None:
    with running_stack(odd_repository, tmp_path / "log", "linear") as (_, gateway):
        models = {
            model["name"]: model
            for model in httpx.get(f"{gateway.url}/models", trust_env=False).json()["models"]
        }
        for name, reason in {
            "stretched": "parameter resize is 'stretch', expected squash or shortest",
            "not_a_number": "add up to nan, not 1",
            "no_probabilities": "has no output 'probabilities', only ['logits']",
        }.items():
            assert models[name]["state"] == "unavailable"
            assert reason in models[name]["reason"]
            response = classify(gateway, f"?model={name}")
            assert response.status_code == 502
            assert response.json()["type"].endswith(":contract-broken")
            assert reason in response.json()["detail"]
        response = classify(gateway, "?model=broken")  # Triton itself does not load it
        assert response.status_code == 503
        assert response.json()["type"].endswith(":model-not-ready")
        assert classify(gateway).status_code == 200
        unlabelled = classify(gateway, "?model=unlabelled").json()["predictions"]
        assert all(prediction["label"] == str(prediction["index"]) for prediction in unlabelled)

        answers = {}
        images = {"grey": flat(127), "white": flat(255)}
        threads = [
            threading.Thread(
                target=lambda name=name: answers.update(
                    {name: classify(gateway, "?model=overflowing", images[name]).status_code}
                )
            )
            for name in images
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == {"grey": 200, "white": 502}


def flat(level: int) -> bytes:
    """A PNG of one grey."""
    file = io.BytesIO()
    Image.new("L", (32, 32), level).save(file, "PNG")
    return file.getvalue()
