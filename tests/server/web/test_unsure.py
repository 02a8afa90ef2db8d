"""`unsure` at /classify: what the provenance of a model says it can tell, with a real gateway."""

import base64
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from tests.photos import photo
from tests.stack import DEFAULT_MODEL, Gateway, check_same, client_of

# Smooth colours, of which some are like nothing that the model has seen, and noise.
IMAGES = [photo(seed, 32, 32) for seed in range(24)]


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    with client_of(gateway) as client:
        yield client


def largest_logit(client: httpx.Client, image: bytes) -> float:
    """By another protocol."""
    text = base64.b64encode(image).decode()
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}
    body = {"inputs": [tensor], "outputs": [{"name": "logits"}]}
    answer = client.post(f"/v2/models/{DEFAULT_MODEL}/infer", json=body).json()
    return float(np.max(answer["outputs"][0]["data"]))


def test_it_is_said_where_it_is_asked_for_and_the_rest_stays(client: httpx.Client) -> None:
    about = client.get(f"/models/{DEFAULT_MODEL}").json()["provenance"]
    below = float(about["unsure_below_logit"])
    verdicts = set()
    for image in IMAGES:
        plain = client.post("/classify", content=image).json()
        assert "unsure" not in plain
        assert "unsure" not in client.post("/classify?unsure=false", content=image).json()
        asked = client.post("/classify?unsure=true", content=image).json()
        check_same(asked["predictions"], plain["predictions"])
        logit = largest_logit(client, image)
        if abs(logit - below) > 1e-4:
            assert asked["unsure"] is (logit < below)
            verdicts.add(asked["unsure"])
    assert verdicts == {True, False}


def test_each_image_of_several_has_its_own(client: httpx.Client) -> None:
    lone = [client.post("/classify?unsure=true", content=image).json() for image in IMAGES[:6]]
    form = [("image", (f"{number}.jpg", image)) for number, image in enumerate(IMAGES[:6])]
    form.append(("image", ("bad.jpg", b"hello")))
    results = client.post("/classify/batch?unsure=true", files=form).json()["results"]
    assert [each["unsure"] for each in results[:6]] == [each["unsure"] for each in lone]
    assert "unsure" not in results[6]
    plain = client.post("/classify/batch", files=form).json()["results"]
    assert not any("unsure" in each for each in plain)


def test_a_model_that_cannot_tell_says_so(client: httpx.Client) -> None:
    response = client.post("/classify?model=linear&unsure=true", content=IMAGES[0])
    assert response.status_code == 422
    assert "cannot tell" in response.json()["detail"]
    assert client.post("/classify?model=linear&unsure=false", content=IMAGES[0]).status_code == 200
    for slip in ("yes", "1", "True", ""):
        response = client.post("/classify", params={"unsure": slip}, content=IMAGES[0])
        assert response.status_code == 422
        assert "expected true or false" in response.json()["detail"]
