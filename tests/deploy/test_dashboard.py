"""Every query of the dashboard and of the rules, asked of a Prometheus that watches a stack.

Everything runs as processes on loopback: Debian's Prometheus, a gateway of two workers, and the
wheel's Triton under the launcher of NVIDIA's image, so that there are engines to tell of: a
stand-in for `trtexec` fails once that was seen. GPU metrics need a GPU.
"""

import contextlib
import functools
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from server.local_triton.supervisor import free_port
from tests.deploy.launcher import launched, prepare
from tests.deploy.prometheus import (
    OBSERVABILITY,
    ON_A_GPU,
    PANELS,
    QUERIES,
    RULES,
    VARIABLES,
    ask,
    check_legends,
    check_query,
    choices,
)  # fmt: skip
from tests.photos import photo
from tests.stack import DEFAULT_MODEL, Gateway, client_of, running_gateway
from tests.waiting import CHECKOUT, wait_for

PROMETHEUS = shutil.which("prometheus")
pytestmark = [
    pytest.mark.skipif(not PROMETHEUS, reason="needs Debian's package `prometheus`"),
    pytest.mark.timeout(300),
]
TRTEXEC = """#!/bin/sh
while [ ! -e {go} ]; do sleep 0.1; done
echo '[E] this graph is refused'
exit 1
"""
# Of cert-manager and of the blackbox exporter, which tell of certificates in front of the gateway.
OF_OTHERS = {
    "certmanager_certificate_expiration_timestamp_seconds",
    "probe_ssl_earliest_cert_expiry",
}
SELECTOR = re.compile(r"\b((?:mixer_\w+|mixer:[\w:]+|up|certmanager_\w+|probe_\w+)(?:\{[^}]*\})?)")


@pytest.fixture(scope="module")
def stack(model_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prometheus that has watched good and bad requests for a while."""
    folder = tmp_path_factory.mktemp("dashboard")
    prepare(model_repository, folder, trtexec=TRTEXEC.format(go=folder / "go"))
    with (
        launched(folder) as triton,
        running_gateway(
            folder / "gateway", "--triton-url", triton.grpc, "--workers", "2", "--default-model",
            DEFAULT_MODEL,
        ) as gateway,
        prometheus(
            folder,
            {"gateway": [gateway.url], "triton": [triton.metrics_url, triton.status_url]},
        ) as url,
    ):  # fmt: skip
        images = "on() sum(rate(nv_inference_count[1m])) > 0"
        rates = f"rate(mixer_images_refused_total[1m]) > 0 and {images}"
        wait_for(lambda: send(gateway) and ask(url, f"sum({rates})"), 120, "two scrapes")
        wait_for(lambda: send(gateway) and ask(url, "sum(up) == 3"), 60, "all targets")
        missing, failed = (
            f'mixer_triton_engine{{state="{state}"}}' for state in ("missing", "failed")
        )
        wait_for(lambda: ask(url, missing), 60, "an engine that is being built")
        (folder / "go").touch()
        wait_for(lambda: ask(url, failed), 60, "an engine that failed")
        for rule in RULES:
            if "record" in rule:
                wait_for(functools.partial(ask, url, rule["record"]), 60, rule["record"])
        with sending(gateway):  # else the rates of the last minute come to nothing at its end
            yield url


@contextlib.contextmanager
def sending(gateway: Gateway) -> Iterator[None]:
    """So that there are requests in every minute."""
    enough = threading.Event()

    def send_on() -> None:
        while not enough.wait(1):
            send(gateway)

    thread = threading.Thread(target=send_on)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def send(gateway: Gateway) -> bool:
    """One good image, one that is none."""
    with client_of(gateway) as client:
        for content, status in ((photo(0), 200), (b"no image", 415)):
            answer = client.post("/classify", content=content)
            assert answer.status_code == status, answer.text
    return True


@contextlib.contextmanager
def prometheus(folder: Path, targets: dict[str, list[str]]) -> Iterator[str]:
    """Debian's Prometheus with the project's rules, which it evaluates every second."""
    url = f"http://127.0.0.1:{free_port()}"
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(OBSERVABILITY / "rules/*.yml")],
        "scrape_configs": [
            {
                "job_name": name,
                "static_configs": [{"targets": [each.removeprefix("http://") for each in urls]}],
            }
            for name, urls in targets.items()
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    assert PROMETHEUS
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(PROMETHEUS, f"--config.file={folder / 'prometheus.yml'}"),
                *(f"--storage.tsdb.path={folder / 'tsdb'}",),
                f"--web.listen-address={url.removeprefix('http://')}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield url
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize(("title", "query"), QUERIES, ids=[title for title, _ in QUERIES])
def test_every_query_of_the_dashboard_has_data(stack: str, title: str, query: str) -> None:
    if title in ON_A_GPU:
        assert ask(stack, query.partition("{")[0]) == []  # or it is no longer to be left out
    else:
        check_query(stack, title, query)


def test_every_recording_rule_has_data(stack: str) -> None:
    for rule in RULES:
        if "record" in rule:
            assert ask(stack, rule["record"]), rule["record"]


def test_every_alert_looks_at_series_that_there_are(stack: str) -> None:
    for rule in RULES:
        if "alert" in rule:
            found = set(SELECTOR.findall(rule["expr"]))
            assert found, rule["alert"]
            for selector in found:
                if selector not in OF_OTHERS:
                    assert ask(stack, f"last_over_time({selector}[5m])"), selector


def test_prometheus_finds_no_fault_in_a_rule(stack: str) -> None:

    def found() -> list[dict[str, Any]]:
        answer = httpx.get(f"{stack}/api/v1/rules", trust_env=False, timeout=30).json()
        return [rule for group in answer["data"]["groups"] for rule in group["rules"]]

    assert len(found()) == len(RULES)
    wait_for(lambda: all(rule["health"] != "unknown" for rule in found()), 60, "evaluated rules")
    assert [rule["name"] for rule in found() if rule["health"] != "ok"] == []


def test_the_legends_name_labels_that_the_series_have(stack: str) -> None:
    check_legends(stack)


def test_the_variables_offer_what_there_is(stack: str) -> None:
    assert choices(stack, "model") == {DEFAULT_MODEL}
    assert choices(stack, "job") == {"gateway", "triton"}
    assert choices(stack, "namespace") == set()  # outside a cluster there is none
    assert set(VARIABLES) == {"datasource", "namespace", "job", "model"}


def test_a_job_and_a_model_can_be_left_out(stack: str) -> None:
    """No query has forgotten a variable."""
    for title, query in QUERIES:
        assert 'namespace=~"$namespace"' in query, title
        assert query.count("{") == query.count('job=~"$job"'), title
        for name, value in (("job", "none"), ("model", "none")):
            one = query.replace(f"${name}", value)
            if one != query:
                left = [s for s in ask(stack, _rest(one)) if s["value"][1] not in {"0", "NaN"}]
                assert left == [], f"{title} with {name}={value}"


def _rest(query: str) -> str:
    query = query.replace("$__rate_interval", "1m")
    for name in VARIABLES:
        query = query.replace(f"${name}", ".*")
    return query


def test_the_panels_ask_the_data_source_that_is_chosen() -> None:
    sources = {target["datasource"]["uid"] for panel in PANELS for target in panel["targets"]}
    assert sources == {"${datasource}"}
    provisioning = OBSERVABILITY / "grafana/provisioning"
    provisioned = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())
    assert [each["type"] for each in provisioned["datasources"]] == [
        VARIABLES["datasource"]["query"]
    ]
    path = re.findall(r"path: (\S+?)}", (provisioning / "dashboards/dashboards.yml").read_text())
    compose = (CHECKOUT / "docker-compose.yml").read_text()
    assert f"grafana/dashboards:{path[0]}:ro" in compose
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    # What has a limit shows it.
    assert sum("thresholds" in panel["fieldConfig"]["defaults"] for panel in PANELS) >= 8
