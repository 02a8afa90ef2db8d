"""POST /embed and the embedding in the Open Inference Protocol, with both engines."""

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.http as triton_http

from contracts.images.decoding import read
from contracts.resizing import ResizeRule
from tests import numpy_models
from tests.photos import photo
from tests.stack import DEFAULT_MODEL, Gateway, Guarded, check_same, client_of, running_gateway
from tests.waiting import CHECKOUT

JPEGS = [photo(seed) for seed in range(3)]
BYTES = "application/octet-stream"
M, D = DEFAULT_MODEL, 128
TOLERANCE = 2e-5


def text(image: bytes) -> str:
    return base64.b64encode(image).decode()


@pytest.fixture(scope="module")
def expected() -> npt.NDArray[np.float32]:
    """What the head of the paper's network is given for the images, float32[3, 128]."""
    with np.load(CHECKOUT / "reference/trained/mixer_cifar10.npz") as file:
        arrays = dict(file)
    pixels = np.stack([read(image, ResizeRule(32, 32)) for image in JPEGS])
    features = numpy_models.mixer_features(arrays, pixels / 127.5 - 1).astype(np.float32)
    assert features.shape == (3, D)
    assert np.abs(features).max() > 0.1
    return features


@pytest.fixture(scope="module", params=["triton", "onnxruntime"])
def client(
    request: pytest.FixtureRequest,
    model_repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[httpx.Client]:
    """Of a gateway with each engine, the same models behind both."""
    if request.param == "triton":
        gateway: Gateway = request.getfixturevalue("gateway")
        with client_of(gateway) as client:
            yield client
        return
    log = tmp_path_factory.mktemp("embedding") / "log"
    flags = ("--engine", "onnxruntime", "--repository", str(model_repository))
    with (
        running_gateway(log, *flags) as gateway,
        client_of(gateway) as client,
    ):
        yield client


def test_one_image_in_every_form(client: httpx.Client, expected: npt.NDArray[np.float32]) -> None:
    ways: list[dict[str, Any]] = [
        {"content": JPEGS[0]},
        {"content": JPEGS[0], "headers": {"Content-Type": "image/jpeg"}},
        {"json": {"image": text(JPEGS[0])}},
        {"json": {"images": [text(JPEGS[0])]}},
        {"files": {"image": ("a.jpg", JPEGS[0])}},
    ]
    for way in ways:
        response = client.post("/embed", **way)
        assert response.status_code == 200, response.text
        answer = response.json()
        assert (answer["model"], answer["version"], answer["dimensions"]) == (M, "1", D)
        (result,) = answer["results"]
        np.testing.assert_allclose(result["embedding"], expected[0], rtol=0, atol=TOLERANCE)
        assert result["filename"] == ("a.jpg" if "files" in way else None)
        assert response.headers["x-request-id"]


def test_many_in_json_and_in_bytes(client: httpx.Client, expected: npt.NDArray[np.float32]) -> None:
    form = [("image", (f"{number}.jpg", image)) for number, image in enumerate(JPEGS)]
    for way in ({"files": form}, {"json": {"images": [text(image) for image in JPEGS]}}):
        rows = client.post("/embed", **way).json()["results"]
        found = np.array([row["embedding"] for row in rows])
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
        response = client.post("/embed", headers={"Accept": BYTES}, **way)
        assert response.headers["content-type"] == BYTES
        assert response.headers["x-embedding-shape"] == f"3,{D}"
        in_bytes = np.frombuffer(response.content, "<f4").reshape(3, D)
        # Nine digits are the same float32; another batch may round the last digit otherwise.
        np.testing.assert_allclose(in_bytes, found, rtol=0, atol=1e-6)


def test_one_bad_image_does_not_spoil_the_others_but_where_there_are_rows_alone(
    client: httpx.Client, expected: npt.NDArray[np.float32]
) -> None:
    form = [("image", ("good.jpg", JPEGS[1])), ("image", ("bad.jpg", JPEGS[0][:2000]))]
    good, bad = client.post("/embed", files=form).json()["results"]
    np.testing.assert_allclose(good["embedding"], expected[1], rtol=0, atol=TOLERANCE)
    assert bad["filename"] == "bad.jpg"
    assert bad["error"]["status"] == 422
    assert "embedding" not in bad
    response = client.post("/embed", files=form, headers={"Accept": BYTES})
    assert response.status_code == 422
    assert response.json()["detail"].startswith("image 2 of 2: ")


@pytest.mark.parametrize(
    ("way", "status", "says"),
    [
        ({"content": b""}, 400, "0 bytes"),
        ({"content": b"hello"}, 415, "text"),
        ({"content": JPEGS[0][:3000]}, 422, "truncated"),
        ({"json": {"images": []}}, 400, "no image"),
        ({"json": {"images": "x"}}, 400, "is a list"),
        ({"json": {"image": "?"}}, 400, "base64"),
        ({"json": {"image": text(JPEGS[0]), "images": []}}, 400, "expected is"),
        ({"files": {"picture": b"x"}}, 400, "no field 'image'"),
        ({"content": JPEGS[0], "params": {"top_k": "3"}}, 422, "there is: model"),
        ({"content": JPEGS[0], "params": [("model", M), ("model", M)]}, 422, "given twice"),
        ({"content": JPEGS[0], "params": {"model": "nope"}}, 404, "nope"),
        ({"content": JPEGS[0], "headers": {"Content-Type": "text/html"}}, 415, "text/html"),
        ({"content": JPEGS[0], "headers": {"X-Request-Timeout": "soon"}}, 422, "soon"),
        # As all models were that were exported before there were embeddings.
        ({"content": JPEGS[0], "params": {"model": "linear"}}, 422, "gives no embeddings"),
        ({"content": JPEGS[0], "params": {"model": "linear"}}, 422, "last product"),
    ],
)
def test_what_is_wrong_is_said(
    client: httpx.Client, way: dict[str, Any], status: int, says: str
) -> None:
    response = client.post("/embed", **way)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert says in response.json()["detail"]


def test_the_models_say_whether_they_embed(client: httpx.Client) -> None:
    found = {each["name"]: each for each in client.get("/models").json()["models"]}
    assert found[M]["embedding"] == D
    assert "embedding" not in found["linear"]
    # One without goes on to classify, in every protocol.
    assert client.post("/classify?model=linear", content=JPEGS[0]).status_code == 200


def test_tritonclient_gets_the_embedding_and_the_logits(
    client: httpx.Client, expected: npt.NDArray[np.float32]
) -> None:
    oip = triton_http.InferenceServerClient(f"{client.base_url.host}:{client.base_url.port}")
    metadata = {each["name"]: each for each in oip.get_model_metadata(M)["outputs"]}
    assert {name: each["shape"] for name, each in metadata.items()} == {
        "probabilities": [-1, 10],
        "logits": [-1, 10],
        "embedding": [-1, D],
    }
    names = [each["name"] for each in oip.get_model_metadata("linear")["outputs"]]
    assert names == ["probabilities", "logits"]
    image = triton_http.InferInput("image", [3], "BYTES")
    image.set_data_from_numpy(np.array(JPEGS, object))
    every = oip.infer(M, [image])  # without outputs: all of them
    for binary in (True, False):
        wanted = [
            triton_http.InferRequestedOutput(name, binary_data=binary)
            for name in ("embedding", "logits")
        ]
        done = oip.infer(M, [image], outputs=wanted)
        assert done.as_numpy("probabilities") is None
        np.testing.assert_allclose(done.as_numpy("embedding"), expected, rtol=0, atol=TOLERANCE)
        logits = done.as_numpy("logits").astype(float)
        about = client.get(f"/models/{M}").json()["provenance"]
        logits /= float(about["temperature"])
        softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        np.testing.assert_allclose(softmax, every.as_numpy("probabilities"), rtol=0, atol=1e-5)
    best = triton_http.InferRequestedOutput("logits", class_count=1)
    (first,) = oip.infer(M, [image], outputs=[best]).as_numpy("logits")[0]
    value, index, _label = first.decode().split(":")
    uncalibrated = logits[0].max() * float(about["temperature"])
    assert float(value) == pytest.approx(uncalibrated, abs=1e-5)
    assert int(index) == logits[0].argmax()
    for bad in (
        triton_http.InferRequestedOutput("embedding", class_count=2),
        triton_http.InferRequestedOutput("features"),
    ):
        with pytest.raises(triton_http.InferenceServerException, match="output"):
            oip.infer(M, [image], outputs=[bad])
    oip.close()


def test_a_key_is_needed_where_keys_are(guarded: Guarded) -> None:
    with client_of(guarded.gateway) as client:
        assert client.post("/embed", content=JPEGS[0]).status_code == 401
        headers = {"X-API-Key": guarded.key}
        assert client.post("/embed", content=JPEGS[0], headers=headers).status_code == 200


def test_while_others_classify_each_gets_what_it_asked_for(
    client: httpx.Client, expected: npt.NDArray[np.float32]
) -> None:
    """Requests of both kinds share batches, which are computed once for all that they want."""
    right = client.post("/classify", content=JPEGS[0]).json()["predictions"]

    async def both() -> None:
        limits = httpx.Limits(max_connections=16)
        async with httpx.AsyncClient(
            base_url=client.base_url, trust_env=False, timeout=60, limits=limits
        ) as many:
            paths = ["/classify", "/embed"] * 40
            answers = await asyncio.gather(*(many.post(p, content=JPEGS[0]) for p in paths))
        for path, answer in zip(paths, answers, strict=True):
            assert answer.status_code == 200, answer.text
            if path == "/classify":
                check_same(answer.json()["predictions"], right)
            else:
                (result,) = answer.json()["results"]
                np.testing.assert_allclose(result["embedding"], expected[0], rtol=0, atol=TOLERANCE)

    asyncio.run(both())
