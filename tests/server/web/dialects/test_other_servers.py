"""The protocols of TorchServe, TensorFlow Serving, KServe, SageMaker, Vertex AI and NIM."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np

from server.local_triton.supervisor import LocalTriton
from tests.server.web.dialects.answers import B64, INSTANCES, JPEG, M, by_index, near
from tests.stack import running_gateway


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
