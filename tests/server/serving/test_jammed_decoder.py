"""A gateway whose decoding is jammed, through HTTP: /readyz says so, and that it is over."""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from server.serving.decoding import PROBE_SECONDS, STALLED_SECONDS
from server.serving.readiness import VERDICT_SECONDS
from tests.photos import photo
from tests.server.serving.images.bombs.png import png
from tests.stack import DEFAULT_MODEL, Gateway, running_gateway, status
from tests.waiting import frozen, wait_for

# 12 million pixels of 16 bits and alpha: half a second, so that it goes to a process.
LARGE = png(3500, 3500, 16, 6, filtered=4)
PATIENCE = 30.0  # of a busy machine, where 3 s will do


@pytest.fixture(scope="module")
def gateway(model_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One with a single place of each kind to decode in."""
    flags = ("--engine", "onnxruntime", "--repository", str(model_repository))
    limits = ("--default-model", DEFAULT_MODEL, "--decode-threads", "1")
    log = tmp_path_factory.mktemp("jammed") / "log"
    with running_gateway(log, *flags, *limits) as running:
        yield running


def classify(gateway: Gateway, image: bytes) -> httpx.Response:
    headers = {"Content-Type": "application/octet-stream", "X-Request-Timeout": "60"}
    url = f"{gateway.url}/classify"
    return httpx.post(url, content=image, headers=headers, timeout=100, trust_env=False)


def worker(gateway: Gateway) -> psutil.Process | None:
    for child in psutil.Process(gateway.pid).children():
        with contextlib.suppress(psutil.Error):
            if "server.serving.images.worker" in child.cmdline():
                return child
    return None


def becomes(gateway: Gateway, expected: int) -> None:
    url = f"{gateway.url}/readyz"
    wait_for(lambda: status(url) == expected, PATIENCE, f"a /readyz of {expected}")


def test_it_is_reported_within_3_s() -> None:
    """What an answer of /readyz is good for, and what the next takes; the rest is the machine's."""
    assert VERDICT_SECONDS + max(PROBE_SECONDS, STALLED_SECONDS) < 3


def test_a_stopped_process_with_an_image_makes_it_not_ready(gateway: Gateway) -> None:
    assert classify(gateway, LARGE).status_code == 200
    stopped = worker(gateway)
    assert stopped
    with frozen(stopped.pid):
        answers: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: answers.append(classify(gateway, LARGE)))
        asking.start()
        becomes(gateway, 503)
        # It is ended and replaced. The image gets an answer that says so, unless a probe had been
        # given the process before it.
        asking.join(PATIENCE)
        [answer] = answers
        assert answer.status_code in (200, 503)
        assert answer.status_code == 200 or answer.json()["type"].endswith(":decoding-stuck")
        becomes(gateway, 200)
    assert classify(gateway, LARGE).status_code == 200


def test_a_stopped_process_without_an_image_makes_it_not_ready(gateway: Gateway) -> None:
    assert classify(gateway, LARGE).status_code == 200
    stopped = worker(gateway)
    assert stopped
    with frozen(stopped.pid):
        becomes(gateway, 503)
        problem = httpx.get(f"{gateway.url}/readyz", trust_env=False).json()
        becomes(gateway, 200)
    # The answer of the second call may be from after it was replaced.
    assert problem.get("type", ":decoding-stuck").endswith(":decoding-stuck")
    assert classify(gateway, LARGE).status_code == 200


def test_small_images_are_answered_meanwhile(gateway: Gateway) -> None:
    assert classify(gateway, LARGE).status_code == 200
    stopped = worker(gateway)
    assert stopped
    with frozen(stopped.pid):
        began = time.monotonic()
        assert classify(gateway, photo(0, 640, 480)).status_code == 200
        assert time.monotonic() - began < PATIENCE
    becomes(gateway, 200)
