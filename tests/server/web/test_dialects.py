"""Other servers' clients, unmodified, and the same odd requests through every dialect."""

import base64
import json
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton_http
from huggingface_hub import InferenceClient

from contracts.images.decoding import read
from contracts.resizing import ResizeRule
from server.local_triton.supervisor import LocalTriton
from server.settings import DIALECTS
from server.web.dialects import ALL
from tests.photos import photo
from tests.server.web.hostile_images import RAW, corpus
from tests.stack import DEFAULT_MODEL, Gateway, Guarded, client_of, running_gateway
from tests.waiting import wait_for

JPEG = photo(0)
B64 = base64.b64encode(JPEG).decode()
M = DEFAULT_MODEL
HF_JS = "@huggingface/inference@4.13.30"


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    with client_of(gateway) as client:
        yield client


@pytest.fixture(scope="module")
def right(client: httpx.Client) -> list[dict[str, Any]]:
    """What /classify says, of all classes, best first."""
    predictions = client.post("/classify?top_k=10", content=JPEG).json()["predictions"]
    assert len(predictions) == 10
    return list(predictions)


def by_index(right: list[dict[str, Any]]) -> list[float]:
    return [p["probability"] for p in sorted(right, key=lambda p: int(p["index"]))]


def near(values: Any, right: Any) -> None:
    assert np.abs(np.asarray(values, float) - np.asarray(right, float)).max() < 1e-6


def test_the_setting_names_every_module() -> None:
    assert ",".join(ALL) == DIALECTS


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


def test_huggingface_hub(gateway: Gateway, right: list[dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(JPEG)
    for url in (f"{gateway.url}/hf", f"{gateway.url}/hf/{M}"):
        client = InferenceClient(base_url=url)
        for image in (str(file), JPEG):
            found = client.image_classification(image)
            assert [each.label for each in found] == [p["label"] for p in right[:5]]
            near([each.score for each in found], [p["probability"] for p in right[:5]])
        assert len(client.image_classification(JPEG, top_k=2)) == 2
        assert len(client.image_classification(JPEG, top_k=99)) == 10
        with pytest.raises(Exception, match="the bytes are text"):
            client.image_classification(b"hello, this is no image")


SCRIPT = """
import { InferenceClient } from "@huggingface/inference";
import { openAsBlob } from "node:fs";
const [url, file] = process.argv.slice(2);
const client = new InferenceClient("key").endpoint(url);
const blob = await openAsBlob(file, {type: "image/jpeg"});
const text = Buffer.from(await blob.arrayBuffer()).toString("base64");
const answers = [
  await client.imageClassification({data: blob}),
  await client.imageClassification({data: await blob.arrayBuffer()}),
  await client.imageClassification({inputs: text}),
];
let failure = "";
try { await client.imageClassification({data: new Blob(["hello"])}); } catch (error) {
  failure = String(error.message) + JSON.stringify(error.httpResponse?.body ?? "");
}
console.log(JSON.stringify({answers, failure}));
"""


def test_huggingface_inference_of_npm(
    gateway: Gateway, right: list[dict[str, Any]], tmp_path: Path
) -> None:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("needs Node and npm: Debian's packages `nodejs` and `npm`")
    install = (npm, "install", "--no-audit", "--no-fund", "--silent", HF_JS)
    if subprocess.run(install, cwd=tmp_path, check=False).returncode:
        pytest.skip(f"needs {HF_JS} from an npm registry")
    (tmp_path / "photo.jpg").write_bytes(JPEG)
    (tmp_path / "script.mjs").write_text(SCRIPT)
    done = subprocess.run(
        [node, "script.mjs", f"{gateway.url}/hf", "photo.jpg"],
        cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    found = json.loads(done.stdout)
    for answer in found["answers"]:
        assert [each["label"] for each in answer] == [p["label"] for p in right[:5]]
        near([each["score"] for each in answer], [p["probability"] for p in right[:5]])
    assert "the bytes are text" in found["failure"]


def test_torchserve_as_curl_and_requests_speak_it(
    client: httpx.Client, right: list[dict[str, Any]]
) -> None:
    answers = [
        client.put(f"/predictions/{M}", content=JPEG),
        client.post(f"/predictions/{M}/1", content=JPEG),
        client.post(f"/predictions/{M}", files={"data": JPEG}),
        client.post(f"/predictions/{M}", files={"body": ("a.jpg", JPEG)}),
    ]
    for answer in answers:
        assert list(answer.json()) == [p["label"] for p in right[:5]]
        near(list(answer.json().values()), [p["probability"] for p in right[:5]])
    assert client.get("/ping").json() == {"status": "Healthy"}
    unknown = client.put("/predictions/nope", content=JPEG)
    assert unknown.status_code == 404
    assert unknown.json()["type"] == "ModelNotFoundException"
    assert unknown.json()["code"] == 404


INSTANCES: list[Any] = [
    {"b64": B64}, {"image_bytes": {"b64": B64}}, B64, {"data": B64},
    {"content": B64, "mimeType": "image/jpeg"}, f"data:image/jpeg;base64,{B64}",
]  # fmt: skip


def test_tensorflow_serving_kserve_and_vertex(
    client: httpx.Client, right: list[dict[str, Any]]
) -> None:
    done = client.post(f"/v1/models/{M}:predict", json={"instances": INSTANCES})
    assert done.status_code == 200, done.text
    for row in done.json()["predictions"]:
        near(row, by_index(right))
    column = {"inputs": {"image": [{"b64": B64}]}}  # as ovmsclient
    done = client.post(f"/v1/models/{M}/versions/0:predict", json=column)
    near(done.json()["outputs"], [by_index(right)])
    status = client.get(f"/v1/models/{M}").json()
    assert (status["ready"], status["model_version_status"][0]["state"]) == (True, "AVAILABLE")
    assert M in client.get("/v1/models").json()["models"]
    rows = np.zeros((32, 32, 3), int).tolist()
    assert client.post(f"/v1/models/{M}:predict", json={"instances": [rows]}).status_code == 200


def test_sagemaker(client: httpx.Client, right: list[dict[str, Any]]) -> None:
    for answer in (
        client.post("/invocations", content=JPEG, headers={"Content-Type": "image/jpeg"}),
        client.post("/invocations", json={"inputs": B64}),
    ):
        assert [each["label"] for each in answer.json()] == [p["label"] for p in right[:5]]
        near([each["score"] for each in answer.json()], [p["probability"] for p in right[:5]])
    several = client.post("/invocations", json={"instances": INSTANCES[:2]}).json()
    near(several["predictions"], [by_index(right)] * 2)


def test_nim_health(client: httpx.Client) -> None:
    for path in ("/v1/health/live", "/v1/health/ready"):
        assert client.get(path).json()["object"] == "health.response"
    assert client.get("/v1/metadata").json()["modelInfo"]


def test_classify_takes_json(client: httpx.Client, right: list[dict[str, Any]]) -> None:
    for image in (B64, f"data:image/jpeg;base64,{B64}"):
        answer = client.post("/classify?top_k=2", json={"image": image}).json()
        near([p["probability"] for p in answer["predictions"]], [
            p["probability"] for p in right[:2]
        ])  # fmt: skip
    bodies: list[Any] = [{}, {"image": 5}, {"image": "?"}, {"image": B64, "x": 1}, [], "x"]
    for bad in bodies:
        response = client.post("/classify", json=bad)
        assert response.status_code == 400, response.text
        assert response.json()["type"].endswith(":bad-body")


@dataclass(frozen=True)
class Way:
    """How an image gets to a dialect, and the member of its errors that tells the reason."""

    path: str
    wrap: Callable[[str], object] | None = None  # base64 to JSON; else the bytes are the body
    reason: str = "error"

    def send(
        self, client: httpx.Client, image: bytes, model: str = M, **headers: str
    ) -> httpx.Response:
        """One image."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        path = self.path.replace("{m}", model)
        if self.wrap is None:
            return client.post(path, content=image, headers=named)
        body = self.wrap(base64.b64encode(image).decode())
        return client.post(path, json=body, headers=named)


def bytes_tensor(text: str) -> object:
    return {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}]}


WAYS = [
    pytest.param(Way("/v2/models/{m}/infer", bytes_tensor), id="oip"),
    pytest.param(Way("/hf/{m}"), id="huggingface"),
    pytest.param(Way("/hf/{m}", lambda text: {"inputs": text}), id="huggingface-json"),
    pytest.param(Way("/predictions/{m}", reason="message"), id="torchserve"),
    pytest.param(
        Way("/v1/models/{m}:predict", lambda text: {"instances": [{"b64": text}]}), id="tfserving"
    ),
]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    given: Way = request.param
    return given


def reason(way: Way, response: httpx.Response) -> str:
    assert response.headers["content-type"] == "application/json"
    return str(response.json()[way.reason])


def test_the_same_odd_images_get_the_same_statuses(way: Way, client: httpx.Client) -> None:
    for image, status, says in (
        (b"hello", 415, "the bytes are text"),
        (JPEG[: len(JPEG) // 2], 422, "truncated"),
    ):
        response = way.send(client, image)
        assert response.status_code == status, response.text
        assert says in reason(way, response)
        assert response.headers["x-request-id"]
        assert "server-timing" in response.headers
    assert way.send(client, b"").status_code == 400
    unknown = way.send(client, JPEG, "nope")
    assert unknown.status_code == 404
    assert "nope" in reason(way, unknown)


def test_every_hostile_image_gets_the_same_status(way: Way, client: httpx.Client) -> None:
    """As /classify gives it (test_hostile.py), in the dialect's own form of an error."""
    cases = [case for case in corpus() if case.content_type == RAW]
    assert len(cases) > 150
    wrong = []
    for case in cases:
        if way.wrap is not None and len(case.body) > 2**20:
            continue  # what a base64 of it would pass is the limit on bodies
        response = way.send(client, case.body, Content_Type=RAW) if way.wrap is None else (
            way.send(client, case.body)
        )  # fmt: skip
        # Clients that declare nothing send JSON, too: what begins so is taken for some.
        statuses = {400} if case.body.startswith(b"{") and way.wrap is None else case.statuses
        if response.status_code not in statuses:
            wrong.append((case.name, sorted(statuses), response.text))
        elif response.status_code != 200:
            assert reason(way, response)
    assert not wrong


def test_deadlines_encodings_and_timeouts(way: Way, client: httpx.Client) -> None:
    late = way.send(client, JPEG, "linear", X_Request_Timeout="0.001")
    assert late.status_code in {429, 504}
    assert reason(way, late)
    bad = way.send(client, JPEG, X_Request_Timeout="soon")
    assert bad.status_code == 422
    assert "X-Request-Timeout" in reason(way, bad)
    coded = way.send(client, JPEG, Content_Encoding="gzip")
    assert coded.status_code == 415
    assert "Content-Encoding" in reason(way, coded)


def test_keys_are_asked_for_in_every_dialect(way: Way, guarded: Guarded) -> None:
    with client_of(guarded.gateway) as client:
        response = way.send(client, JPEG)
        assert response.status_code == 401
        assert "API key" in reason(way, response)
        assert way.send(client, JPEG, Authorization=f"Bearer {guarded.key}").status_code == 200
        for probe in ("/v2", "/v2/health/live", "/v2/health/ready", "/ping", "/v1/health/ready"):
            assert client.get(probe).status_code == 200


@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none", None, "SigMoid"])
def test_hugging_face_applies_the_function(client: httpx.Client, function: str | None) -> None:
    """To the logits of the model, here by the textbook and without this project's code."""
    image = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [B64]}
    body = {"inputs": [image], "outputs": [{"name": "logits"}, {"name": "probabilities"}]}
    answer = client.post(f"/v2/models/{M}/infer", json=body).json()
    outputs = {each["name"]: np.array(each["data"]) for each in answer["outputs"]}
    expected = {
        "sigmoid": 1 / (1 + np.exp(-outputs["logits"])),
        "none": outputs["logits"],
    }.get((function or "").lower(), outputs["probabilities"])
    asked = {"top_k": 10} | ({} if function is None else {"function_to_apply": function})
    found = client.post("/hf", json={"inputs": B64, "parameters": asked}).json()
    labels = client.get(f"/models/{M}").json()["labels"]
    scores = {each["label"]: each["score"] for each in found}
    near([scores[label] for label in labels], expected)
    assert [each["score"] for each in found] == sorted(scores.values(), reverse=True)


def test_hugging_face_refuses_another_function(client: httpx.Client) -> None:
    for function in ("tanh", 5, ["none"]):
        asked = {"inputs": B64, "parameters": {"function_to_apply": function}}
        response = client.post("/hf", json=asked)
        assert response.status_code == 400
        assert "expected softmax, sigmoid, none" in response.json()["error"]


def test_metrics_tell_the_route_and_the_model(client: httpx.Client) -> None:
    assert client.post("/hf", content=JPEG).status_code == 200
    # A request is counted after its answer has left.
    sample = f'mixer_requests_total{{model="{M}",path="/hf",status="200"}}'
    wait_for(lambda: sample in client.get("/metrics").text, what="the request in the metrics")


@pytest.mark.parametrize(
    "body", [b"{", b"[" * 100_000, b"{}", b"null", b"\xff", b'{"inputs": NaN}']
)
@pytest.mark.parametrize(
    "path", [f"/v2/models/{M}/infer", f"/v1/models/{M}:predict", f"/hf/{M}", "/invocations"]
)
def test_hostile_json(client: httpx.Client, path: str, body: bytes) -> None:
    response = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert 400 <= response.status_code < 500, response.text
    assert response.json()["error"]


@pytest.fixture(scope="module")
def strict(triton: LocalTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Of a gateway with low limits."""
    flags = (
        *(f"--triton-url={triton.grpc_url}", f"--default-model={M}"),
        *("--max-body-bytes", "50000", "--max-pixels", "50000"),
    )
    with (
        running_gateway(tmp_path_factory.mktemp("strict") / "log", *flags) as gateway,
        client_of(gateway) as client,
    ):
        yield client


def test_limits_are_the_same_in_every_dialect(way: Way, strict: httpx.Client) -> None:
    large = way.send(strict, JPEG + bytes(60_000))
    assert large.status_code == 413
    assert "50000" in reason(way, large)
    wide = way.send(strict, photo(0, 400, 300))
    assert wide.status_code == 413
    assert "pixels" in reason(way, wide)
    assert way.send(strict, photo(0, 200, 150)).status_code == 200


def test_too_many_values_are_refused_before_they_are_parsed(client: httpx.Client) -> None:
    body = b'{"inputs": [' + b"0," * 2**21 + b"0]}"
    response = client.post(f"/v2/models/{M}/infer", content=body)
    assert response.status_code == 413


def test_vertex_ai_names_its_routes(triton: LocalTriton, tmp_path: Path) -> None:
    route = "/v1/endpoints/5/deployedModels/7:predict"  # equal, where a user names none
    flags = (f"--triton-url={triton.grpc_url}", f"--default-model={M}")
    environment = {"AIP_PREDICT_ROUTE": route, "AIP_HEALTH_ROUTE": route}
    with running_gateway(tmp_path / "log", *flags, environment=environment) as gateway:
        url = gateway.url + route
        assert httpx.get(url, trust_env=False).status_code == 200
        body = {"instances": [{"content": B64, "mimeType": "image/jpeg"}]}
        answer = httpx.post(url, json=body, trust_env=False, timeout=30)
        assert len(answer.json()["predictions"][0]) == 10
        assert httpx.post(url, json={}, trust_env=False).json()["error"]


def test_dialects_are_switched_off(triton: LocalTriton, tmp_path: Path) -> None:
    flags = (f"--triton-url={triton.grpc_url}", f"--default-model={M}", "--dialects", "oip")
    with (
        running_gateway(tmp_path / "log", *flags) as gateway,
        client_of(gateway) as client,
    ):
        assert client.get(f"/v2/models/{M}").status_code == 200
        for path in ("/hf", f"/predictions/{M}", "/invocations", f"/v1/models/{M}:predict"):
            response = client.post(path, content=JPEG)
            assert response.status_code == 404
            assert response.headers["content-type"] == "application/problem+json"
