"""The same odd requests through every dialect: the same statuses, limits and keys."""

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from server.local_triton.supervisor import LocalTriton
from server.settings import DIALECTS
from server.web.dialects import ALL
from tests.photos import photo
from tests.server.web.dialects.answers import JPEG, M
from tests.server.web.hostile_images import RAW, corpus
from tests.stack import Guarded, client_of, running_gateway
from tests.waiting import wait_for


def test_the_setting_names_every_module() -> None:
    assert ",".join(ALL) == DIALECTS


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
