"""The Open Inference Protocol, as tritonclient speaks it, and tensors that it does not allow."""

import json
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton_http

from contracts.images.decoding import read
from contracts.resizing import ResizeRule
from tests.server.web.dialects.answers import B64, JPEG, M, by_index, near
from tests.stack import Gateway


@pytest.fixture(scope="module")
def oip(gateway: Gateway) -> Iterator[triton_http.InferenceServerClient]:
    client = triton_http.InferenceServerClient(gateway.url.removeprefix("http://"))
    yield client
    client.close()


def test_tritonclient_finds_the_model(oip: triton_http.InferenceServerClient) -> None:
    assert oip.is_server_live()
    assert oip.is_server_ready()
    assert oip.is_model_ready(M)
    assert oip.is_model_ready(M, "1")
    assert not oip.is_model_ready("nope")
    assert oip.get_server_metadata()["extensions"] == ["classification", "binary_tensor_data"]
    metadata = oip.get_model_metadata(M)
    assert metadata["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}]
    assert metadata["outputs"][0]["shape"] == [-1, 10]
    with pytest.raises(triton_http.InferenceServerException, match="nope"):
        oip.get_model_metadata("nope")


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("compression", [None], ids=["plain"])
def test_tritonclient_infers_pixels(
    oip: triton_http.InferenceServerClient,
    right: list[dict[str, Any]],
    binary: bool,
    compression: str | None,
) -> None:
    rule = ResizeRule.from_parameters(32, 32, {"resize": "squash", "interpolation": "bilinear"})
    pixels = read(JPEG, rule)
    tensor = triton_http.InferInput("image", [2, 32, 32, 3], "UINT8")
    tensor.set_data_from_numpy(np.stack([pixels, pixels]), binary_data=binary)
    output = triton_http.InferRequestedOutput("probabilities", binary_data=binary)
    done = oip.infer(
        M, [tensor], outputs=[output], request_id="42",
        request_compression_algorithm=compression,
    )  # fmt: skip
    assert done.get_response()["id"] == "42"
    for row in done.as_numpy("probabilities"):
        near(row, by_index(right))


@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_tritonclient_infers_jpegs_and_classifies(
    oip: triton_http.InferenceServerClient, right: list[dict[str, Any]], shape: list[int]
) -> None:
    tensor = triton_http.InferInput("image", shape, "BYTES")
    tensor.set_data_from_numpy(np.array([JPEG, JPEG], object).reshape(shape))
    for row in oip.infer(M, [tensor]).as_numpy("probabilities"):
        near(row, by_index(right))
    for binary in (True, False):
        output = triton_http.InferRequestedOutput(
            "probabilities", binary_data=binary, class_count=3
        )
        done = oip.infer(M, [tensor], outputs=[output]).as_numpy("probabilities")
        assert done.shape == (2, 3)
        for row in done:
            for text, prediction in zip(row, right, strict=False):
                value, index, label = (text if isinstance(text, str) else text.decode()).split(
                    ":", 2
                )
                assert (int(index), label) == (prediction["index"], prediction["label"])
                assert float(value) == pytest.approx(prediction["probability"], abs=2e-6)


def test_base64_and_raw_tensors(client: httpx.Client, right: list[dict[str, Any]]) -> None:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [B64]}
    done = client.post(f"/v2/models/{M}/infer", json={"inputs": [tensor]}).json()
    near(done["outputs"][0]["data"], by_index(right))
    raw = client.post(
        f"/v2/models/{M}/versions/1/infer",
        content=JPEG,
        headers={"Inference-Header-Content-Length": "0"},
    )
    length = int(raw.headers["inference-header-content-length"])
    outputs = json.loads(raw.content[:length])["outputs"]
    assert [each["name"] for each in outputs] == ["probabilities", "logits", "embedding"]
    sizes = [each["parameters"]["binary_data_size"] for each in outputs]
    assert sum(sizes) == len(raw.content) - length
    tail = raw.content[length : length + sizes[0]]
    near(np.frombuffer(tail, "<f4"), by_index(right))


PIXELS = {"name": "image", "datatype": "UINT8", "shape": [1, 32, 32, 3]}
ZEROS = [0] * 3072


@pytest.mark.parametrize(
    "inputs",
    [
        [], None, [{}], [PIXELS], [PIXELS | {"data": ZEROS[1:]}], [PIXELS | {"data": "x"}],
        [PIXELS | {"data": [-1, *ZEROS[1:]]}], [PIXELS | {"data": [1.5, *ZEROS[1:]]}],
        [PIXELS | {"data": [256, *ZEROS[1:]]}], [PIXELS | {"data": [True, *ZEROS[1:]]}],
        [PIXELS | {"data": [None, *ZEROS[1:]]}], [PIXELS | {"data": [[0], [0, 1]]}],
        [PIXELS | {"data": ZEROS, "name": "x"}], [PIXELS | {"data": ZEROS, "datatype": "FP32"}],
        [PIXELS | {"data": ZEROS, "shape": [1, 3072]}], [PIXELS | {"data": ZEROS, "shape": [-1]}],
        [PIXELS | {"data": ZEROS}] * 2, [PIXELS | {"parameters": {"binary_data_size": 9}}],
        [{"name": "image", "datatype": "BYTES", "shape": [2], "data": [B64]}],
        [{"name": "image", "datatype": "BYTES", "shape": [], "data": []}],
        [{"name": "image", "datatype": "BYTES", "shape": [0], "data": []}],
        [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [{"b64": B64}]}],
        [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["no base64!"]}],
    ],
)  # fmt: skip
def test_a_bad_tensor_is_400(client: httpx.Client, inputs: object) -> None:
    response = client.post(f"/v2/models/{M}/infer", json={"inputs": inputs})
    assert response.status_code == 400, response.text
    assert response.json()["error"]


def test_whole_floats_are_pixels(client: httpx.Client) -> None:
    for data in ([0.0] * 3072, np.zeros((1, 32, 32, 3)).tolist()):
        response = client.post(f"/v2/models/{M}/infer", json={"inputs": [PIXELS | {"data": data}]})
        assert response.status_code == 200, response.text


def test_a_bytes_tensor_that_is_cut(client: httpx.Client) -> None:
    for tail in (b"", b"\1", struct.pack("<I", 9) + b"x", struct.pack("<I", 2**32 - 1)):
        tensor: dict[str, Any] = {"name": "image", "datatype": "BYTES", "shape": [1]}
        tensor["parameters"] = {"binary_data_size": len(tail)}
        head = json.dumps({"inputs": [tensor]}).encode()
        for length in (len(head), len(head) - 1, 10**9, "x", ""):
            response = client.post(
                f"/v2/models/{M}/infer",
                content=head + tail,
                headers={"Inference-Header-Content-Length": str(length)},
            )
            assert response.status_code == 400


def test_too_many_values_are_refused_before_they_are_parsed(client: httpx.Client) -> None:
    body = b'{"inputs": [' + b"0," * 2**21 + b"0]}"
    response = client.post(f"/v2/models/{M}/infer", content=body)
    assert response.status_code == 413
