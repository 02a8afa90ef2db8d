"""Clients that are slow, endless, impatient or gone, and what a real gateway does with them."""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from server.local_triton.supervisor import LocalTriton
from tests.photos import photo
from tests.stack import DEFAULT_MODEL, Gateway, check_same, client_of, running_gateway, status
from tests.waiting import wait_for

JPEG = photo(0, 100, 80)
RAW = {"Content-Type": "image/jpeg"}
MAX_BODY, MAX_BUFFERED = 200_000, 300_000


@pytest.fixture(scope="module")
def strict(triton: LocalTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with small limits."""
    with running_gateway(
        tmp_path_factory.mktemp("strict") / "log",
        *("--triton-url", triton.grpc_url, "--default-model", DEFAULT_MODEL),
        *("--read-timeout", "1", "--max-request-timeout", "5"),
        *("--max-body-bytes", str(MAX_BODY), "--max-buffered-bytes", str(MAX_BUFFERED)),
        "--access-log",
    ) as gateway:
        yield gateway


def connect(gateway: Gateway) -> socket.socket:
    host, port = gateway.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), 20)


def answer(client: socket.socket) -> str:
    """Everything until the gateway closes."""
    data = b""
    while chunk := client.recv(65536):
        data += chunk
    return data.decode()


HEAD = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"


@pytest.mark.parametrize(
    ("sent", "first", "kind"),
    [
        pytest.param(b"", "408", "slow-request", id="nothing"),
        pytest.param(HEAD, "408", "slow-request", id="half a head"),
        pytest.param(HEAD + b"Content-Length: 9\r\n\r\nabc", "408", "slow-request", id="half"),
        pytest.param(
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "408",
            "slow-request",
            id="chunk",
        ),
        pytest.param(HEAD + b"X: " + b"x" * 500_000, "431", "head-too-large", id="endless head"),
        pytest.param(
            HEAD + b"X: " + b"x" * 66_000 + b"\r\nContent-Length: 9\r\n\r\nabcdefghi",
            "431",
            "head-too-large",
            id="whole head",
        ),
        pytest.param(b"\x16\x03\x01\x02\0\1\0", "400", "malformed-request", id="TLS"),
        pytest.param(b"rubbish\r\n\r\n", "400", "malformed-request", id="rubbish"),
    ],
)
def test_half_a_request_is_disconnected(
    strict: Gateway, sent: bytes, first: str, kind: str
) -> None:
    def answered() -> str | None:
        with connect(strict) as client:
            client.sendall(sent)
            text = answer(client)
        # On a machine that stands still for a second, whatever it is comes too late.
        return None if first != "408" and text.startswith("HTTP/1.1 408 ") else text

    found = wait_for(answered, what="an answer that is not about the time it took")
    assert found.startswith(f"HTTP/1.1 {first} ")
    assert f"urn:mixer-serving:problem:{kind}" in found


def test_what_is_no_whole_request_is_counted_and_logged(strict: Gateway) -> None:
    def count() -> float:
        text = httpx.get(f"{strict.url}/metrics", trust_env=False).text
        sample = 'mixer_requests_total{model="",path="other",status="400"} '
        return float((text.partition(sample)[2] or "0").split()[0])

    before = count()
    with connect(strict) as client:
        client.sendall(b"rubbish\r\n\r\n")
        identity = answer(client).partition("x-request-id: ")[2].split()[0]
    # Both come after the answer; of the last line in the log a part may be there.
    wait_for(lambda: count() == before + 1, what="the request in the metrics")

    def lines() -> list[dict[str, object]]:
        whole = strict.log.read_text().rpartition("\n")[0].splitlines()
        return [line for line in map(json.loads, whole) if line.get("request_id") == identity]

    (line,) = wait_for(lines, what="the request in the log")
    assert (line["status"], line["problem"]) == (400, "malformed-request")


def test_an_endless_body_is_cut_off_at_the_limit(strict: Gateway) -> None:
    def answered() -> bytes:
        with connect(strict) as client:
            client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            client.settimeout(0.001)
            for _ in range(100):
                try:
                    client.sendall(b"%x\r\n%b\r\n" % (MAX_BODY // 10, bytes(MAX_BODY // 10)))
                    return client.recv(4096)
                except TimeoutError:
                    pass
        pytest.fail("an endless body was taken")

    # On a machine that stands still for a second the body is too slow before it is too large.
    wait_for(lambda: answered().startswith(b"HTTP/1.1 413 "), what="a 413")


def test_a_slow_unwanted_body_is_cut_off(strict: Gateway) -> None:
    with connect(strict) as client:
        head = HEAD.replace(b"/classify", b"/nothing") + b"Content-Length: 100000\r\n\r\n"
        client.sendall(head)
        client.settimeout(0.1)
        began = time.monotonic()
        data = b""
        while True:
            assert time.monotonic() - began < 20
            try:
                client.sendall(b"x")
                chunk = client.recv(4096)
                if not chunk:
                    break
                data += chunk
            except TimeoutError:
                continue
            except OSError:
                break
    assert data.startswith(b"HTTP/1.1 404 ")


def test_an_endless_unwanted_body_is_cut_off(strict: Gateway) -> None:
    with connect(strict) as client:
        client.sendall(
            HEAD.replace(b"/classify", b"/nothing") + b"Transfer-Encoding: chunked\r\n\r\n"
        )
        answered = answer(client)
    assert answered.startswith("HTTP/1.1 404 ")
    assert "connection: close" in answered


def test_all_bodies_together_have_a_limit(strict: Gateway) -> None:
    head = HEAD + f"Content-Length: {MAX_BODY}\r\n\r\n".encode()

    def answers() -> list[str]:
        with connect(strict) as one, connect(strict) as two:
            for client in (one, two):
                client.sendall(head + bytes(MAX_BODY - 1))
            return sorted(answer(client).split(" ")[1] for client in (one, two))

    # The one that found room is only slow. On a machine that stands still for a second between the
    # two it is given up before the other one comes.
    assert wait_for(lambda: found if (found := answers()) != ["408"] * 2 else None) == [
        "408",
        "429",
    ]
    # What was held has been given back.
    assert (
        httpx.post(
            f"{strict.url}/classify", content=JPEG, headers=RAW, trust_env=False, timeout=30
        ).status_code
        == 200
    )


@pytest.mark.parametrize(
    ("more", "closes"),
    [
        pytest.param("", False, id="kept"),
        pytest.param("Connection: close\r\n", True, id="closed"),
        pytest.param("Expect: 100-continue\r\n", True, id="before it is sent"),
    ],
)
def test_a_full_gate_refuses_before_it_has_read_the_image(
    gateway: Gateway, more: str, closes: bool
) -> None:
    # `linear` keeps every image for 50 ms, so that the next one cannot be in time.
    head = HEAD.replace(b"/classify", b"/classify?model=linear") + more.encode()
    head += f"X-Request-Timeout: 0.001\r\nContent-Length: {len(JPEG)}\r\n\r\n".encode()
    url = f"{gateway.url}/classify?model=linear"
    enough = threading.Event()

    def keep_it_busy() -> None:
        with httpx.Client(trust_env=False, timeout=30) as client:
            while not enough.is_set():
                assert client.post(url, content=JPEG, headers=RAW).status_code == 200

    def refused() -> str | None:
        with connect(gateway) as client:
            client.sendall(head)  # and nothing of the body
            client.settimeout(1)
            try:
                answered = client.recv(4096).decode()
            except TimeoutError:
                return None  # between two images: it waits for the body
            client.settimeout(20)
            if not answered.startswith("HTTP/1.1 429 "):
                return None
            assert "urn:mixer-serving:problem:too-busy" in answered
            assert "retry-after: " in answered
            assert "x-request-id: " in answered
            assert "server-timing: " in answered
            assert ("connection: close" in answered) is closes
            client.sendall(JPEG)
            if not closes:  # the connection is as good as before
                client.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
                assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
            return answered

    threads = [threading.Thread(target=keep_it_busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        wait_for(refused, what="a refusal")
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    sample = r'^mixer_requests_total{model="linear",path="/classify",status="429"} [1-9]'

    def counted() -> bool:  # after the answer has left
        text = httpx.get(f"{gateway.url}/metrics", trust_env=False).text
        return re.search(sample, text, re.M) is not None

    wait_for(counted, what="the refusal in the metrics")


@pytest.mark.parametrize("asked", ["soon", "0", "-1", "nan", "inf", ""])
def test_a_timeout_that_is_none(strict: Gateway, asked: str) -> None:
    response = httpx.post(
        f"{strict.url}/classify",
        content=JPEG,
        headers=RAW | {"X-Request-Timeout": asked},
        trust_env=False,
    )
    assert response.status_code == 422
    assert "X-Request-Timeout" in response.json()["detail"]


def test_the_client_chooses_its_deadline(gateway: Gateway) -> None:
    # `linear` keeps every image for 50 ms.
    url = f"{gateway.url}/classify?model=linear"
    for seconds, expected in (("0.01", 504), ("20", 200), ("1e9", 200)):
        response = httpx.post(
            url,
            content=JPEG,
            headers=RAW | {"X-Request-Timeout": seconds},
            trust_env=False,
            timeout=30,
        )
        assert response.status_code == expected, response.text
    # A batch has one deadline for all.
    response = httpx.post(
        f"{gateway.url}/classify/batch?model=linear",
        files=[("image", JPEG)] * 3,
        headers={"X-Request-Timeout": "0.01"},
        trust_env=False,
    )
    assert response.status_code == 504


def test_a_client_that_goes_away_leaves_nothing(gateway: Gateway) -> None:
    head = HEAD.replace(b"/classify", b"/classify?model=linear")
    for _ in range(20):
        with connect(gateway) as client:
            client.sendall(head + f"Content-Length: {len(JPEG)}\r\n\r\n".encode() + JPEG)

    def given_up() -> int:
        text = httpx.get(f"{gateway.url}/metrics", trust_env=False).text
        return len(re.findall(r'^mixer_requests_total{.*status="499"} [1-9]', text, re.M))

    wait_for(given_up, what="requests that were given up")
    response = httpx.post(
        f"{gateway.url}/classify?model=linear",
        content=JPEG,
        headers=RAW,
        trust_env=False,
        timeout=30,
    )
    assert response.status_code == 200
    assert "Traceback" not in gateway.log.read_text()


def test_an_answer_comes_in_one_piece_and_pipelined_ones_in_order(gateway: Gateway) -> None:
    request = HEAD + f"Content-Length: {len(JPEG)}\r\n\r\n".encode() + JPEG
    with connect(gateway) as client:
        for _ in range(20):
            client.sendall(request)
            head, body = client.recv(65536).decode().split("\r\n\r\n")
            assert f"content-length: {len(body)}" in head
        # The last one closes the connection, after all answers.
        last = HEAD.replace(b"/classify", b"/classify?top_k=1") + b"Connection: close\r\n"
        client.sendall(request * 2 + last + request.removeprefix(HEAD))
        answers = [json.loads(body) for body in re.findall("{.*}", answer(client))]
    assert [len(answer["predictions"]) for answer in answers] == [5, 5, 1]


def test_a_wish_for_another_protocol_does_not_lose_the_image(gateway: Gateway) -> None:
    # As Java's client and `curl --http2` send it.
    wish = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    length = f"Content-Length: {len(JPEG)}\r\n\r\n".encode()
    chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(JPEG) + JPEG + b"\r\n0\r\n\r\n"
    with connect(gateway) as client:
        client.sendall(HEAD + wish + length + JPEG)
        client.sendall(HEAD + wish + chunked)
        client.sendall(HEAD + b"Connection: close\r\n" + length + JPEG)
        answers = [json.loads(body) for body in re.findall("{.*}", answer(client))]
    assert len(answers) == 3
    for each in answers:
        check_same(each["predictions"], answers[0]["predictions"])


def test_draining_it_is_not_ready_and_serves_on(triton: LocalTriton, tmp_path: Path) -> None:
    flags = ("--triton-url", triton.grpc_url, "--default-model", DEFAULT_MODEL)
    drain = 6.0  # also on a machine that stands still for two seconds all of this comes before
    with running_gateway(tmp_path / "log", *flags, "--drain-seconds", str(drain)) as gateway:
        with client_of(gateway) as client:
            assert client.post("/classify", content=JPEG, headers=RAW).status_code == 200
            gateway.process.terminate()
            began = time.monotonic()
            wait_for(lambda: status(f"{gateway.url}/readyz") == 503, drain / 2, "not ready")
            response = client.post("/classify", content=JPEG, headers=RAW)
            assert response.status_code == 200
            assert response.headers["connection"] == "close"
            assert client.get("/readyz").json()["type"].endswith(":draining")
            assert client.get("/livez").status_code == 200
        assert gateway.process.wait(20) == 0
        assert time.monotonic() - began > drain - 1
        assert "Traceback" not in gateway.log.read_text()
