"""What GET /metrics and the log tell, of a gateway of two workers, one of which gets killed."""

import json
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from server import __version__
from tests import stack
from tests.photos import photo
from tests.stack import DEFAULT_MODEL, Guarded
from tests.waiting import wait_for


def numbers(guarded: Guarded) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    response = httpx.get(f"{guarded.gateway.url}/metrics", trust_env=False, timeout=30)
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def classify(guarded: Guarded, content: bytes, query: str = "") -> httpx.Response:
    # A connection each, so that both workers get some.
    return stack.classify(guarded.gateway, content, query, {"X-API-Key": guarded.key})


def workers(guarded: Guarded) -> set[int]:
    """The processes that answered requests, by the log."""
    lines = log_lines(guarded.gateway.log)
    return {line["process"] for line in lines if line["logger"] == "server.access"}


def log_lines(path: Path) -> list[dict[str, Any]]:
    whole, _, _ = path.read_text().rpartition("\n")  # of the last line a part may be there
    return [json.loads(line) for line in whole.splitlines()]


def test_two_workers_count_as_one_and_a_dead_one_is_replaced(guarded: Guarded) -> None:
    before = numbers(guarded)
    image = photo(3, 64, 48)

    def send(content: bytes, times: int) -> set[int]:
        with ThreadPoolExecutor(8) as threads:
            answers = threads.map(lambda _: classify(guarded, content).status_code, range(times))
            return set(answers)

    assert send(image, 40) == {200}
    assert send(b"hello", 5) == {415}
    assert classify(guarded, image, "?model=<b>").status_code == 404
    wait_for(lambda: len(workers(guarded)) > 1, what="requests at both workers")
    after = before

    def grown(name: str, **labels: str) -> float:
        return after.get(key(name, **labels), 0) - before.get(key(name, **labels), 0)

    def counted(requests: int) -> bool:
        """A request is counted after its answer has left: the last ones may not be yet."""
        nonlocal after
        after = numbers(guarded)
        kinds = {labels for name, labels in after if name == "mixer_requests_total"}
        names = [dict(labels) for labels in kinds]
        mine = [each for each in names if each["path"] == "/classify"]
        return sum(grown("mixer_requests_total", **each) for each in mine) >= requests

    wait_for(lambda: counted(46), what="all requests in the metrics")
    victim = min(workers(guarded))
    ready = f"model {DEFAULT_MODEL} version"
    as_many = guarded.gateway.log.read_text().count(ready)
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: f"worker {victim} died" in guarded.gateway.log.read_text(), what="its death")
    # The other one is ready all the time: /readyz does not tell of this one.
    wait_for(lambda: guarded.gateway.log.read_text().count(ready) > as_many, what="another worker")
    assert send(image, 10) == {200}
    wait_for(lambda: counted(56), what="the other requests in the metrics")
    route = {"path": "/classify", "model": DEFAULT_MODEL}
    assert grown("mixer_requests_total", **route, status="200") == 50
    assert grown("mixer_requests_total", **route, status="415") == 5
    # No label value is of a client's making.
    assert grown("mixer_requests_total", path="/classify", model="", status="404") == 1
    assert grown("mixer_images_refused_total", reason="unsupported-type") == 5
    for stage in ("read", "admission"):
        assert grown("mixer_stage_seconds_count", stage=stage, model=DEFAULT_MODEL) == 55
    for stage in ("decode", "queue", "inference"):
        assert grown("mixer_stage_seconds_count", stage=stage, model=DEFAULT_MODEL) == 50
    assert grown("mixer_stage_seconds_count", stage="total", model=DEFAULT_MODEL) == 55
    assert grown("mixer_stage_seconds_count", stage="total", model="") == 1
    assert grown("mixer_image_pixels_sum") == 50 * 64 * 48
    assert grown("mixer_image_bytes_sum") == 50 * len(image) + 5 * len(b"hello")
    assert after[key("mixer_requests_in_flight")] == 1  # the one that asks
    assert after[key("mixer_triton_average_batch", model=DEFAULT_MODEL)] >= 1
    builds = [labels for name, labels in after if name == "mixer_build_info"]
    assert [dict(labels)["version"] for labels in builds] == [__version__]


def test_the_log_is_json_and_tells_no_secret(guarded: Guarded) -> None:
    response = classify(guarded, photo(4, 60, 60))
    request_id = response.headers["x-request-id"]
    httpx.get(f"{guarded.gateway.url}/x%0Aforged?secret=1", trust_env=False)

    def line() -> dict[str, Any] | None:
        found = [x for x in log_lines(guarded.gateway.log) if x.get("request_id") == request_id]
        return found[0] if found else None

    said = wait_for(line, what="the request in the log")
    expected = {"method": "POST", "path": "/classify", "status": 200, "key": "alice"}
    assert {name: said[name] for name in expected} == expected
    assert said["model"] == DEFAULT_MODEL
    assert {"decode_milliseconds", "inference_milliseconds", "milliseconds"} <= set(said)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", str(said["time"]))
    text = guarded.gateway.log.read_text()
    assert guarded.key not in text
    assert "secret" not in text
    assert "Traceback" not in text
    forged = wait_for(
        lambda: [x for x in log_lines(guarded.gateway.log) if "forged" in str(x.get("path"))]
    )
    assert forged[0]["path"] == "/x%0Aforged"
    assert forged[0]["problem"] == "unauthorized"


def test_cpu_and_memory_are_those_of_every_process(guarded: Guarded) -> None:
    found = numbers(guarded)
    for name in ("mixer_process_cpu_seconds_total", "mixer_process_memory_bytes"):
        pids = {int(dict(labels)["pid"]) for each, labels in found if each == name}
        family = {guarded.gateway.pid, *workers(guarded)}
        # A worker that was killed by another test is no longer there.
        assert pids >= {pid for pid in family if psutil.pid_exists(pid)}
        assert all(found[key(name, pid=str(pid))] > 0 for pid in family & pids)
