import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from server.local_triton.stubs import children
from server.local_triton.supervisor import LocalTriton
from tests import tiny_models
from tests.stack import running_triton
from tests.waiting import wait_for

Pixels = npt.NDArray[np.uint8]
Outputs = dict[str, npt.NDArray[np.float32]]
BOTH = ("logits", "probabilities")
BROKEN = {
    "missing_file": "model.onnx is missing",
    "not_onnx": "INVALID_PROTOBUF",
    "other_output": "declares the outputs ['logits', 'scores'], model.onnx has",
    "two_inputs": "declares the inputs ['mask', 'image']",
    "bad_number": "parameter intra_op_thread_count is 'many'; a whole number from 0 to 1024",
    "bad_mode": "parameter execution_mode is '7'; a whole number from 0 to 1 is",
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of model that the backend meets, the broken ones too."""
    repository = tmp_path_factory.mktemp("backend")
    tiny_models.publish(repository, "plain")
    tiny_models.publish(repository, "patient", queue_delay_us=300_000)
    tiny_models.publish(repository, "external", external_data=True)
    tiny_models.publish(repository, "twins", instances=2)
    three = {"intra_op_thread_count": "3", "session.intra_op.allow_spinning": "1"}
    tiny_models.publish(repository, "three_threads", parameters=three)
    tiny_models.publish(repository, "one_thread", parameters={"intra_op_thread_count": "1"})
    broken = {name: tiny_models.publish(repository, name) for name in BROKEN}
    (broken["missing_file"] / tiny_models.MODEL_FILE).unlink()
    (broken["not_onnx"] / tiny_models.MODEL_FILE).write_bytes(b"not a graph")
    for name, old, new in (
        ("other_output", '"probabilities"', '"scores"'),
        ("two_inputs", "input [", 'input [ { name: "mask" data_type: TYPE_UINT8 dims: [ 1 ] }, '),
    ):
        config = broken[name] / "config.pbtxt"
        config.write_text(config.read_text().replace(old, new))
    for name, key, value in (
        ("bad_number", "intra_op_thread_count", "many"),
        ("bad_mode", "execution_mode", "7"),
    ):
        with (broken[name] / "config.pbtxt").open("a") as file:
            file.write(f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n')
    return repository


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[LocalTriton]:
    with running_triton(repository) as running:
        yield running


@pytest.fixture
def client(server: LocalTriton) -> Iterator[triton_grpc.InferenceServerClient]:
    with triton_grpc.InferenceServerClient(server.grpc_url) as client:
        yield client


def pictures(count: int, seed: int) -> Pixels:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def infer(
    client: triton_grpc.InferenceServerClient,
    model: str,
    images: Pixels,
    wanted: tuple[str, ...] = BOTH,
) -> Outputs:
    image = triton_grpc.InferInput("image", images.shape, "UINT8")
    image.set_data_from_numpy(images)
    outputs = [triton_grpc.InferRequestedOutput(name) for name in wanted]
    answer = client.infer(model, [image], outputs=outputs)
    assert {output.name for output in answer.get_response().outputs} == set(wanted)
    return {name: answer.as_numpy(name) for name in wanted}


def executions(client: triton_grpc.InferenceServerClient, model: str) -> tuple[int, int]:
    """Images answered so far, and the batches in which they ran."""
    statistics = client.get_inference_statistics(model).model_stats[0]
    return statistics.inference_count, statistics.execution_count


def stubs(server: LocalTriton, model: str) -> list[int]:
    assert server.pid is not None
    found = []
    for pid in children(server.pid):
        instance = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[-3]
        found += [pid] if instance.startswith(f"{model}_") else []
    return found


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


@pytest.mark.parametrize("model", ["plain", "external", "twins"])
@pytest.mark.parametrize("count", [1, 3, tiny_models.MAX_BATCH_SIZE])
def test_answers_as_onnx_runtime_does(
    client: triton_grpc.InferenceServerClient, repository: Path, model: str, count: int
) -> None:
    images = pictures(count, seed=count)
    session = onnxruntime.InferenceSession(repository / model / tiny_models.MODEL_FILE)
    answer = infer(client, model, images)
    for name, expected in zip(BOTH, session.run(list(BOTH), {"image": images}), strict=True):
        assert answer[name].dtype == np.float32
        # Threads and batch sizes sum in other orders: float32 rounding and no more.
        np.testing.assert_allclose(answer[name], expected, rtol=0, atol=1e-5)


def test_concurrent_requests_share_a_batch(client: triton_grpc.InferenceServerClient) -> None:
    """Requests of several sizes, which want other outputs, are run together and told apart."""
    requests = [
        (pictures(1 + i % 3, seed=i), BOTH if i % 2 else ("probabilities",)) for i in range(9)
    ]
    alone = [infer(client, "plain", images, wanted) for images, wanted in requests]
    count_before, batches_before = executions(client, "patient")
    began = time.monotonic()
    with ThreadPoolExecutor(len(requests)) as pool:
        together = list(pool.map(lambda request: infer(client, "patient", *request), requests))
    sent = sum(len(images) for images, _ in requests)
    assert sent == 18
    # Triton counts a request after it has answered.
    wait_for(lambda: executions(client, "patient")[0] >= count_before + sent, what="all counted")
    count, batches = executions(client, "patient")
    # Probes of the supervisor may have been among them, one every two seconds.
    assert count - count_before - sent <= 1 + (time.monotonic() - began) / 2
    assert batches - batches_before < len(requests) / 2
    for one, other in zip(alone, together, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_allclose(one[name], other[name], rtol=0, atol=1e-5)


def test_a_malformed_request_spares_the_others(client: triton_grpc.InferenceServerClient) -> None:
    def attempt(images: Pixels) -> str:
        try:
            infer(client, "patient", images)
        except InferenceServerException as error:
            return str(error.message())
        return "answered"

    good = pictures(1, seed=0)
    wrong = np.zeros((1, 31, 32, 3), np.uint8)
    too_many = np.zeros((tiny_models.MAX_BATCH_SIZE + 1, 32, 32, 3), np.uint8)
    with ThreadPoolExecutor(5) as pool:
        first, shape, second, size, third = pool.map(attempt, [good, wrong, good, too_many, good])
    assert first == second == third == "answered"
    assert "[1,31,32,3]" in shape
    assert "batch-size must be <= 32" in size


def test_each_instance_is_a_process(server: LocalTriton) -> None:
    assert len(stubs(server, "plain")) == 1
    assert len(stubs(server, "twins")) == 2


def test_thread_counts_are_those_of_the_config(server: LocalTriton) -> None:
    (one,), (three,) = stubs(server, "one_thread"), stubs(server, "three_threads")
    assert threads(three) == threads(one) + 2


@pytest.mark.parametrize(("model", "reason"), BROKEN.items(), ids=list(BROKEN))
def test_a_broken_model_says_what_is_wrong(
    client: triton_grpc.InferenceServerClient, model: str, reason: str
) -> None:
    index = {entry.name: entry for entry in client.get_model_repository_index().models}
    assert index[model].state == "UNAVAILABLE"
    assert reason in index[model].reason
