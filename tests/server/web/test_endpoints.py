"""server/web/endpoints.py: /classify, /classify/batch and /models, through a real gateway."""

import io
from collections.abc import Iterator

import httpx
import pytest
from PIL import Image

from server.local_triton.supervisor import LocalTriton
from tests.photos import photo
from tests.server.web.problems import JPEG, RAW, check_problem
from tests.stack import DEFAULT_MODEL, Gateway, check_same, client_of, running_gateway
from tests.tiny_models import CLASSES
from tests.waiting import CHECKOUT

LABELS = (CHECKOUT / f"model_repository/{DEFAULT_MODEL}/labels.txt").read_text().split()


MAX_BODY = 200_000


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
        client_of(gateway) as client,
    ):
        yield client


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

# As curl -d sends a file.
STRIPPED = JPEG.translate(None, b"\r\n\0")


@pytest.mark.parametrize(
    ("query", "content", "headers", "status", "kind", "detail"),
    [
        pytest.param("", b"", RAW, 400, "no-image", "0 bytes", id="empty body"),
        pytest.param("", b"x", FORM, 400, "no-image", "malformed", id="broken form"),
        pytest.param("", JPEG, TEXT, 415, "unsupported-type", "text/plain", id="declared text"),
        pytest.param("", b"a=b", CURL, 415, "unsupported-type", "Content-Type image/*", id="form"),
        pytest.param("", STRIPPED, CURL, 422, "unreadable-image", "--data-binary", id="curl -d"),
        pytest.param("", b"\x89PNG", CURL, 415, "unsupported-type", "--data-binary", id="a PNG"),
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
    response = client.post("/classify", files={"image": (None, "cat.jpg")})  # curl -F image=cat.jpg
    check_problem(response, 415, "unsupported-type", "-F image=@FILE")
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


def test_the_log_of_all_this_has_no_traceback(gateway: Gateway) -> None:
    assert "Traceback" not in gateway.log.read_text()
