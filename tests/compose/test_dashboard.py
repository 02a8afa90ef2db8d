"""The dashboard's every query, asked of a real Prometheus that watches the containers.

The Prometheus is the service of docker-compose.yml, with its settings, networks and configuration;
only its image is exchanged for the program in Debian's package: CI may be unable to pull images.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from server.local_triton.supervisor import free_port
from tests.compose.stack import BASE_IMAGE, Stack, missing, running_stack
from tests.deploy.prometheus import (
    OF_NVIDIAS_IMAGE,
    ON_A_GPU,
    QUERIES,
    RULES,
    ask,
    check_query,
    choices,
)  # fmt: skip
from tests.photos import photo
from tests.waiting import wait_for

LACKING = missing() or (
    "" if shutil.which("prometheus") else "needs Prometheus (Debian's package `prometheus`)"
)
pytestmark = [pytest.mark.skipif(bool(LACKING), reason=LACKING), pytest.mark.timeout(600)]


def overlay(file: Path) -> Path:
    """A compose file that puts Debian's Prometheus in the place of the image's."""
    prometheus = {
        "image": BASE_IMAGE,
        "entrypoint": ["/usr/bin/prometheus"],
        "user": "0",  # its volume is made for the user of the real image
        "volumes": [f"{shutil.which('prometheus')}:/usr/bin/prometheus:ro"],
        "healthcheck": {"disable": True},
    }
    file.write_text(json.dumps({"services": {"prometheus": prometheus}}))
    return file


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address; it has watched good and bad requests for a while."""
    folder = tmp_path_factory.mktemp("dashboard")
    port = free_port()
    with running_stack(folder, overlay(folder / "o.json"), PROMETHEUS_PORT=str(port)) as stack:
        stack.compose("up", "--detach", "--no-deps", "prometheus")
        url = f"http://127.0.0.1:{port}"
        # As a rate needs it: seen at two scrapes at least, and changed between them.
        images = "on() sum(rate(nv_inference_count[1m])) > 0"
        rates = f"rate(mixer_images_refused_total[1m]) > 0 and {images}"
        wait_for(lambda: _send(stack) and ask(url, f"sum({rates})"), 120, "two scrapes")
        wait_for(lambda: _send(stack) and ask(url, "sum(up) == 3"), 60, "all targets")
        # They are evaluated once a minute; without requests its rates would come to nothing.
        rules = "mixer:slow:ratio_rate1h"
        wait_for(lambda: _send(stack) and ask(url, rules), 180, "recorded rules")
        yield url


def _send(stack: Stack) -> bool:
    """One good image, one that is none."""
    stack.classify(photo(0))
    answer = httpx.post(f"{stack.url}/classify", content=b"no image", trust_env=False, timeout=30)
    assert answer.status_code == 415
    return True


@pytest.mark.parametrize(("title", "query"), QUERIES, ids=[title for title, _ in QUERIES])
def test_every_query_of_the_dashboard_has_data(prometheus: str, title: str, query: str) -> None:
    if title not in ON_A_GPU | OF_NVIDIAS_IMAGE:
        check_query(prometheus, title, query)


def test_the_variables_offer_what_there_is(prometheus: str) -> None:
    assert choices(prometheus, "model") == {"mixer_cifar10"}
    assert choices(prometheus, "job") == {"gateway", "triton", "triton-status"}


def test_it_has_the_rules(prometheus: str) -> None:
    answer = httpx.get(f"{prometheus}/api/v1/rules", trust_env=False).json()
    found = [rule for group in answer["data"]["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in found} == {r.get("record") or r["alert"] for r in RULES}
    assert [rule["name"] for rule in found if rule["health"] not in {"ok", "unknown"}] == []
