"""The gateway's HTTP contract, through a real gateway in front of a real Triton."""

import asyncio
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from server import __version__
from server.local_triton.supervisor import LocalTriton
from server.web.dialects import ALL, of_path
from tests.photos import photo
from tests.stack import DEFAULT_MODEL, Gateway, check_same, running_gateway
from tests.tiny_models import CLASSES
from tests.waiting import CHECKOUT

LABELS = (CHECKOUT / f"model_repository/{DEFAULT_MODEL}/labels.txt").read_text().split()
JPEG = photo(0)
RAW = {"Content-Type": "image/jpeg"}
MAX_BODY = 200_000


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, trust_env=False, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def strict(triton: LocalTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A gateway with small limits."""
    with (
        running_gateway(
            tmp_path_factory.mktemp("strict") / "log",
            f"--triton-url={triton.grpc_url}",
            f"--default-model={DEFAULT_MODEL}",
            f"--max-body-bytes={MAX_BODY}",
            "--max-batch-images=3",
        ) as gateway,
        httpx.Client(base_url=gateway.url, trust_env=False, timeout=30) as client,
    ):
        yield client


def check_problem(response: httpx.Response, status: int, kind: str, detail: str = "") -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == f"urn:mixer-serving:problem:{kind}"
    assert problem["status"] == status
    assert problem["title"]
    assert detail in problem["detail"]
    assert problem["request_id"] == response.headers["x-request-id"]
    assert "server-timing" in response.headers


def test_an_image_is_classified(client: httpx.Client) -> None:
    response = client.post("/classify", content=JPEG, headers=RAW)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert (answer["model"], answer["version"]) == (DEFAULT_MODEL, "1")
    assert len(answer["predictions"]) == 5
    probabilities = [prediction["probability"] for prediction in answer["predictions"]]
    assert probabilities == sorted(probabilities, reverse=True)
    for prediction in answer["predictions"]:
        assert prediction["label"] == LABELS[prediction["index"]]


def test_raw_and_multipart_and_untyped_give_the_same(client: httpx.Client) -> None:
    answers = [
        client.post("/classify", content=JPEG, headers=RAW),
        client.post(
            "/classify", content=JPEG, headers={"Content-Type": "application/octet-stream"}
        ),
        client.post("/classify", content=JPEG, headers={"Content-Type": "image/png"}),
        client.post("/classify", content=JPEG, headers=CURL),
        client.post("/classify", files={"image": ("cat.jpg", JPEG, "image/jpeg")}),
        client.post("/classify", files={"image": ("猫.jpg", JPEG)}),
        client.send(httpx.Request("POST", f"{client.base_url}/classify", content=JPEG)),
    ]
    assert {answer.status_code for answer in answers} == {200}
    for answer in answers[1:]:
        check_same(answer.json()["predictions"], answers[0].json()["predictions"])


def test_top_k_and_model_are_chosen_by_the_query(client: httpx.Client) -> None:
    every = client.post(f"/classify?top_k={CLASSES}", content=JPEG, headers=RAW).json()
    assert sum(p["probability"] for p in every["predictions"]) == pytest.approx(1, abs=1e-5)
    assert {p["index"] for p in every["predictions"]} == set(range(CLASSES))
    best = client.post("/classify?top_k=1", content=JPEG, headers=RAW).json()
    check_same(best["predictions"], every["predictions"][:1])
    other = client.post("/classify?model=linear", content=JPEG, headers=RAW).json()
    assert other["model"] == "linear"
    assert other["predictions"] != every["predictions"][:5]


HALF = JPEG[: len(JPEG) // 2]
FORM = {"Content-Type": "multipart/form-data; boundary=b"}
TEXT = {"Content-Type": "text/plain"}
CURL = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    ("query", "content", "headers", "status", "kind", "detail"),
    [
        pytest.param("", b"", RAW, 400, "no-image", "0 bytes", id="empty body"),
        pytest.param("", b"x", FORM, 400, "no-image", "malformed", id="broken form"),
        pytest.param("", JPEG, TEXT, 415, "unsupported-type", "text/plain", id="declared text"),
        pytest.param("", b"a=b", CURL, 415, "unsupported-type", "Content-Type image/*", id="form"),
        pytest.param("", b"hello", RAW, 415, "unsupported-type", "are text", id="not an image"),
        pytest.param("", HALF, RAW, 422, "unreadable-image", "truncated", id="truncated"),
        pytest.param("?top_k=0", JPEG, RAW, 422, "bad-parameter", "1 to 10", id="top_k=0"),
        pytest.param("?top_k=-1", JPEG, RAW, 422, "bad-parameter", "1 to 10", id="top_k=-1"),
        pytest.param("?top_k=11", JPEG, RAW, 422, "bad-parameter", "10 classes", id="top_k=11"),
        pytest.param("?top_k=two", JPEG, RAW, 422, "bad-parameter", "'two'", id="top_k=two"),
        pytest.param("?top_k=", JPEG, RAW, 422, "bad-parameter", "whole number", id="no top_k"),
        pytest.param(f"?top_k={'9' * 5000}", JPEG, RAW, 422, "bad-parameter", "", id="huge top_k"),
        pytest.param("?topk=3", JPEG, RAW, 422, "bad-parameter", "model, top_k", id="misspelt"),
        pytest.param("?top_k=1&top_k=2", JPEG, RAW, 422, "bad-parameter", "twice", id="twice"),
        pytest.param(
            "?model=cat", JPEG, RAW, 404, "unknown-model", "linear, mixer_cifar10", id="model"
        ),
    ],
)
def test_bad_input_gets_a_clear_problem(  # noqa: PLR0917 - the columns of the table above
    client: httpx.Client,
    query: str,
    content: bytes,
    headers: dict[str, str],
    status: int,
    kind: str,
    detail: str,
) -> None:
    response = client.post(f"/classify{query}", content=content, headers=headers)
    check_problem(response, status, kind, detail)


def test_a_form_needs_exactly_one_image(client: httpx.Client) -> None:
    image = ("cat.jpg", JPEG, "image/jpeg")
    response = client.post("/classify", files={"file": image})
    check_problem(response, 400, "no-image", "has no field 'image' (its fields: 'file')")
    response = client.post("/classify", files=[("image", image), ("image", image)])
    check_problem(response, 400, "no-image", "/classify/batch")
    response = client.post("/classify", files={"image": ("empty.jpg", b"")})
    check_problem(response, 400, "no-image", "0 bytes")


@pytest.mark.parametrize("path", ["/classify", "/classify/batch"])
def test_a_model_in_the_form_is_refused_with_its_right_place(
    client: httpx.Client, path: str
) -> None:
    response = client.post(path, files={"image": ("cat.jpg", JPEG)}, data={"model": "linear"})
    check_problem(response, 422, "bad-parameter", "'model'; model and top_k are parameters of")


def test_sixty_megapixels_are_refused(client: httpx.Client) -> None:
    file = io.BytesIO()
    Image.new("1", (10_000, 6_000)).save(file, "PNG")
    response = client.post("/classify", content=file.getvalue(), headers=RAW)
    check_problem(response, 413, "too-many-pixels", "60000000 pixels, at most 50000000")


def test_a_body_over_the_limit_is_refused(strict: httpx.Client) -> None:
    large = bytes(10 * MAX_BODY)
    declared = strict.post("/classify", content=large, headers=RAW)
    check_problem(declared, 413, "body-too-large", f"has {len(large)} bytes, at most {MAX_BODY}")
    chunks = (large[at : at + 4096] for at in range(0, len(large), 4096))
    chunked = strict.post("/classify", content=chunks, headers=RAW)
    check_problem(chunked, 413, "body-too-large", f"more than the {MAX_BODY} bytes")
    form = strict.post("/classify", files={"image": ("cat.jpg", large)})
    check_problem(form, 413, "body-too-large")
    assert strict.post("/classify", content=JPEG[:MAX_BODY], headers=RAW).status_code == 200


def test_unknown_paths_and_methods(client: httpx.Client) -> None:
    check_problem(client.get("/nothing"), 404, "not-found", "/nothing")
    response = client.get("/classify")
    check_problem(response, 405, "method-not-allowed", "allowed is POST")
    assert response.headers["allow"] == "POST"
    assert client.post("/livez").headers["allow"] == "GET, HEAD"


def test_head_is_get_without_the_body(client: httpx.Client) -> None:
    for path, status in (
        ("/", 200),
        ("/livez", 200),
        ("/readyz", 200),
        ("/no", 404),
        ("/classify", 405),
    ):
        head, get = client.head(path), client.get(path)
        assert (head.status_code, head.content) == (status, b"")
        assert head.headers["content-type"] == get.headers["content-type"]
        assert abs(int(head.headers["content-length"]) - len(get.content)) < 3


def test_every_response_has_the_clients_id_or_a_new_one(client: httpx.Client) -> None:
    for path in ("/livez", "/models", "/nothing", "/docs", "/openapi.json"):
        response = client.get(path, headers={"X-Request-ID": "order-66/a:b"})
        assert response.headers["x-request-id"] == "order-66/a:b"
        assert re.search(r"total;dur=\d", response.headers["server-timing"])
    for unsafe in ("", "a b", "<script>", "x" * 129):
        given = client.get("/livez", headers={"X-Request-ID": unsafe}).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{32}", given)


def test_server_timing_tells_the_phases(client: httpx.Client) -> None:
    timing = client.post("/classify", content=JPEG, headers=RAW).headers["server-timing"]
    phases = dict(re.findall(r"(\w+);dur=([\d.]+)", timing))
    assert list(phases) == ["decode", "queue", "inference", "total"]
    parts = sum(float(phases[name]) for name in ("decode", "queue", "inference"))
    assert 0 < parts <= float(phases["total"])
    failed = client.post("/classify", content=b"hello", headers=RAW).headers["server-timing"]
    assert "inference" not in failed


def test_concurrent_answers_equal_lone_ones_and_share_batches(
    gateway: Gateway, triton: LocalTriton
) -> None:
    images = [photo(seed, 64, 48) for seed in range(32)]

    # `linear` waits 50 ms in Triton's queue for company, however slow this machine is.
    def counts() -> tuple[int, int]:
        text = httpx.get(triton.metrics_url, trust_env=False).text
        names = ("nv_inference_count", "nv_inference_exec_count")
        found = [re.search(rf'^{name}{{model="linear".*}} (\d+)', text, re.M) for name in names]
        return int(found[0][1]) if found[0] else 0, int(found[1][1]) if found[1] else 0

    async def classify_all() -> None:
        limits = httpx.Limits(max_connections=32)
        async with httpx.AsyncClient(
            base_url=gateway.url, trust_env=False, timeout=30, limits=limits
        ) as client:

            async def classify(image: bytes) -> list[dict[str, float]]:
                response = await client.post(
                    f"/classify?model=linear&top_k={CLASSES}", content=image, headers=RAW
                )
                assert response.status_code == 200, response.text
                ordered = sorted(response.json()["predictions"], key=lambda p: int(p["index"]))
                return [p["probability"] for p in ordered]

            alone = np.array([await classify(image) for image in images])
            inferences, executions = counts()
            for _ in range(5):
                together = await asyncio.gather(*(classify(image) for image in images))
                # A batch is one matrix product, whose sums may be rounded in another order.
                assert np.abs(np.array(together) - alone).max() < 1e-6
            more_inferences, more_executions = counts()
            assert more_inferences - inferences >= 5 * 32
            assert (more_inferences - inferences) / (more_executions - executions) > 2
            assert len({tuple(row) for row in alone}) == 32

    asyncio.run(classify_all())


def test_decoding_has_a_lower_priority_than_the_event_loop(
    triton: LocalTriton, tmp_path: Path
) -> None:
    """Also where the server itself was started with `nice`."""
    flags = (f"--triton-url={triton.grpc_url}", f"--default-model={DEFAULT_MODEL}")
    with running_gateway(tmp_path / "log", *flags, "--decode-threads=2") as gateway:
        os.setpriority(os.PRIO_PROCESS, gateway.pid, 15)
        # One thread has decoded the probe of /readyz before; two images at once need another.
        files = [("image", JPEG)] * 4
        answer = httpx.post(f"{gateway.url}/classify/batch", files=files, trust_env=False)
        assert answer.status_code == 200
        threads = [int(task.name) for task in Path(f"/proc/{gateway.pid}/task").iterdir()]
        assert os.getpriority(os.PRIO_PROCESS, gateway.pid) == 15
        assert max(os.getpriority(os.PRIO_PROCESS, thread) for thread in threads) == 19


def test_one_bad_image_does_not_spoil_a_batch(client: httpx.Client) -> None:
    png = photo(1, 100, 80, "PNG")
    files = [
        ("image", ("a.jpg", JPEG)),
        ("image", ("notes.txt", b"hello")),
        ("image", ("half.jpg", HALF)),
        ("image", ("none.jpg", b"")),
        ("image", ("b.png", png)),
    ]
    response = client.post("/classify/batch?top_k=2", files=files)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert (answer["model"], answer["version"]) == (DEFAULT_MODEL, "1")
    names = [result["filename"] for result in answer["results"]]
    assert names == ["a.jpg", "notes.txt", "half.jpg", "none.jpg", "b.png"]
    statuses = [result.get("error", {}).get("status") for result in answer["results"]]
    assert statuses == [None, 415, 422, 400, None]
    for at, image in ((0, JPEG), (4, png)):
        lone = client.post("/classify?top_k=2", content=image, headers=RAW).json()["predictions"]
        check_same(answer["results"][at]["predictions"], lone)


def test_a_batch_larger_than_the_models_is_answered(client: httpx.Client) -> None:
    images = [photo(seed, 40, 40) for seed in range(50)]
    response = client.post("/classify/batch", files=[("image", image) for image in images])
    results = response.json()["results"]
    assert [len(result["predictions"]) for result in results] == [5] * 50


def test_bad_batches(client: httpx.Client, strict: httpx.Client) -> None:
    check_problem(
        client.post("/classify/batch", content=JPEG, headers=RAW), 415, "unsupported-type"
    )
    check_problem(client.post("/classify/batch", files={"x": b"x"}), 400, "no-image")
    small = photo(0, 20, 20)
    response = strict.post("/classify/batch", files=[("image", small)] * 4)
    check_problem(response, 413, "body-too-large", "4 images, at most 3")


def test_models_are_listed_and_shown(client: httpx.Client) -> None:
    listed = client.get("/models").json()
    assert listed["default"] == DEFAULT_MODEL
    assert [(m["name"], m["state"], m["default"]) for m in listed["models"]] == [
        ("linear", "ready", False),
        (DEFAULT_MODEL, "ready", True),
    ]
    shown = client.get(f"/models/{DEFAULT_MODEL}").json()
    assert shown["input"] == {"height": 32, "width": 32}
    assert shown["labels"] == LABELS
    assert shown["provenance"]["family"] == "mixer"
    check_problem(client.get("/models/cat"), 404, "unknown-model")


def test_health(client: httpx.Client) -> None:
    assert client.get("/livez").json() == {"status": "live", "version": __version__}
    for path in ("/readyz", "/healthz"):
        assert client.get(path).json() == {
            "status": "ready",
            "model": DEFAULT_MODEL,
            "version": "1",
        }


def test_the_openapi_document_names_every_answer(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    text = json.dumps(document)
    for reference in set(re.findall(r'"#/components/schemas/(\w+)"', text)):
        assert reference in document["components"]["schemas"]
    for path in ("/classify", "/classify/batch"):
        operation = document["paths"][path]["post"]
        assert set(operation["responses"]) == {
            "200", "400", "401", "404", "408", "413", "415", "422", "429",
            "431", "500", "502", "503", "504",
        }  # fmt: skip
        assert {p["name"] for p in operation["parameters"]} == {
            "model",
            "top_k",
            "threshold",
            "X-Request-Timeout",
        }
        assert "multipart/form-data" in operation["requestBody"]["content"]
    bodies = set(document["paths"]["/classify"]["post"]["requestBody"]["content"])
    images = {"image/*", "application/octet-stream", "multipart/form-data"}
    assert bodies == images | {"application/json"}
    for path, operations in document["paths"].items():
        own = of_path(ALL.values(), path) is None  # else the errors of that dialect
        for operation in operations.values():
            for status, response in operation["responses"].items():
                for kind, content in response["content"].items():
                    assert ("problem" in kind) is (own and status != "200")
                    assert content["schema"] or not own
                    assert "example" in content or content["examples"]
    assert client.get("/docs").status_code == 200


def test_the_log_of_all_this_has_no_traceback(gateway: Gateway) -> None:
    assert "Traceback" not in Path(gateway.log).read_text()
