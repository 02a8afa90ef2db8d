"""The dashboard's every query, asked of a real Prometheus that watches a running stack.

The Prometheus is the service of docker-compose.yml, with its settings, networks and configuration;
only its image is exchanged for the program in Debian's package: CI may be unable to pull images.
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.local_triton.supervisor import free_port
from tests.compose.stack import BASE_IMAGE, Stack, missing, running_stack
from tests.photos import photo
from tests.waiting import CHECKOUT, wait_for

LACKING = missing() or (
    "" if shutil.which("prometheus") else "needs Prometheus (Debian's package `prometheus`)"
)
pytestmark = [pytest.mark.skipif(bool(LACKING), reason=LACKING), pytest.mark.timeout(600)]
GRAFANA = CHECKOUT / "deploy/observability/grafana"
DASHBOARD = json.loads((GRAFANA / "dashboards/mixer-serving.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], t["expr"]) for panel in PANELS for t in panel["targets"]]


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
        rates = f"rate(mixer_images_refused_total[1m]) > 0 and {_rate('nv_inference_count')} > 0"
        wait_for(lambda: _send(stack) and _ask(url, f"sum({rates})"), 120, "two scrapes")
        wait_for(lambda: _send(stack) and _ask(url, "sum(up) == 3"), 60, "all targets")
        yield url


def _rate(metric: str) -> str:
    return f"on() sum(rate({metric}[1m]))"


def _send(stack: Stack) -> bool:
    """One good image, one that is none."""
    stack.classify(photo(0))
    answer = httpx.post(f"{stack.url}/classify", content=b"no image", trust_env=False)
    assert answer.status_code == 415
    return True


def _ask(url: str, query: str) -> list[dict[str, Any]]:
    try:
        answer = httpx.get(f"{url}/api/v1/query", params={"query": query}, trust_env=False)
    except httpx.TransportError:
        return []
    if answer.status_code != 200:
        assert answer.status_code == 503, answer.text
        return []
    result: list[dict[str, Any]] = answer.json()["data"]["result"]
    return result


@pytest.mark.parametrize(("title", "query"), QUERIES, ids=[title for title, _ in QUERIES])
def test_every_query_of_the_dashboard_has_data(prometheus: str, title: str, query: str) -> None:
    filled = query.replace("$__rate_interval", "1m").replace("$model", ".*")
    assert "$" not in filled
    result = _ask(prometheus, filled)
    assert result, title
    assert not any(series["value"][1] == "NaN" for series in result), result


def test_the_legends_name_labels_that_the_series_have(prometheus: str) -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            filled = target["expr"].replace("$__rate_interval", "1m").replace("$model", ".*")
            wanted = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            for series in _ask(prometheus, filled):
                assert wanted <= set(series["metric"]), panel["title"]


def test_the_models_of_the_choice_are_found(prometheus: str) -> None:
    (choice,) = DASHBOARD["templating"]["list"]
    found = re.fullmatch(r"label_values\((\w+), (\w+)\)", choice["query"]["query"])
    assert found
    values = {series["metric"][found[2]] for series in _ask(prometheus, found[1])}
    assert values == {"mixer_cifar10"}


def test_the_panels_ask_the_data_source_that_is_provisioned() -> None:
    provisioned = (GRAFANA / "provisioning/datasources/prometheus.yml").read_text()
    sources = {target["datasource"]["uid"] for panel in PANELS for target in panel["targets"]}
    assert sources == {re.findall(r"uid: (\S+)", provisioned)[0]}
    path = re.findall(
        r"path: (\S+?)}", (GRAFANA / "provisioning/dashboards/dashboards.yml").read_text()
    )
    compose = (CHECKOUT / "docker-compose.yml").read_text()
    assert f"grafana/dashboards:{path[0]}:ro" in compose
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
