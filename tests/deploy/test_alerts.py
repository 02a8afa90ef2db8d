"""The alerts, each made to fire and to stay silent by `promtool test rules`."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.waiting import CHECKOUT

RULES = CHECKOUT / "deploy/observability/rules/mixer-serving.yml"
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}
pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool (Debian's package `prometheus`)"
)
GATEWAY, TRITON = 'namespace="ml",job="gateway",instance="g"', 'job="triton",instance="t"'
Series = dict[str, str]


def requests(good: int, bad: int, status: str = "503") -> Series:
    """Requests to /classify in each minute."""
    name = f'mixer_requests_total{{{GATEWAY},path="/classify",model="cat",status'
    return {f'{name}="200"}}': f"0+{good}x5000", f'{name}="{status}"}}': f"0+{bad}x5000"}


def answered(in_time: int, late: int) -> Series:
    """Requests in each minute that took less than 1 s, and more."""
    name = f'mixer_stage_seconds_bucket{{{GATEWAY},stage="total",le='
    count = f'mixer_stage_seconds_count{{{GATEWAY},stage="total"}}'
    return {f'{name}"1.0"}}': f"0+{in_time}x200", count: f"0+{in_time + late}x200"}


def gauge(name: str, labels: str, values: str) -> Series:
    return {f"{name}{{{labels}}}": values}


# Series that make an alert fire, series of which it must say nothing, when it is asked.
Case = tuple[Series, Series, str]


def of_one(name: str, labels: str, loud: str, silent: str, when: str = "10m") -> Case:
    """A case whose two sides are values of one series."""
    return gauge(name, labels, loud), gauge(name, labels, silent), when


CASES: dict[str, Case] = {
    "MixerErrorBudgetBurnsFast": (requests(970, 30), requests(9990, 10), "70m"),
    "MixerErrorBudgetBurnsSlowly": (requests(9950, 50), requests(99995, 5), "30h"),
    "MixerSlow": (answered(90, 10), answered(99, 1), "90m"),
    "MixerGatewayDown": of_one("up", GATEWAY, "0x20", "1x20"),
    "MixerNoTriton": of_one("mixer_triton_replicas", GATEWAY, "0x20", "0 1x20"),
    "MixerTritonNotReady": of_one("mixer_triton_ready", TRITON, "0x20", "0x3 1x20"),
    "MixerModelUnhealthy": of_one(
        "mixer_triton_model_healthy", f'{TRITON},model="cat"', "0x20", "0 1x20"
    ),
    "MixerEngineMissing": (
        gauge("mixer_triton_engine", f'{TRITON},model="cat",state="failed"', "1x90"),
        # It is being built.
        gauge("mixer_triton_engine", f'{TRITON},model="cat",state="missing"', "1x40"),
        "40m",
    ),
    "MixerTritonRestarts": (
        gauge("mixer_triton_restarts_total", f'{TRITON},reason="hung"', "0x5 1x5 2x5 3x30"),
        gauge("mixer_triton_restarts_total", f'{TRITON},reason="died"', "0x10 1x40"),
        "25m",
    ),
    "MixerShedding": (
        requests(90, 10, "429") | gauge("mixer_requests_shed_total", GATEWAY, "0+10x60"),
        requests(999, 1, "429") | gauge("mixer_requests_shed_total", GATEWAY, "0+1x60"),
        "30m",
    ),
    "MixerDecodingSaturated": of_one(
        "mixer_stage_seconds_sum", f'{GATEWAY},stage="queue"', "0+600x60", "0+120x60", "30m"
    ),
    "MixerCallsRepeated": (
        requests(100, 0) | gauge("mixer_triton_retries_total", f'{GATEWAY},kind="away"', "0+5x60"),
        requests(1000, 0) | gauge("mixer_triton_retries_total", f'{GATEWAY},kind="away"', "0+1x60"),
        "30m",
    ),
    "MixerCertificateExpires": of_one(
        "certmanager_certificate_expiration_timestamp_seconds",
        'name="mixer"',
        "500000x200",
        "5000000x200",
        "2h",
    ),
}


def firing(tmp_path: Path, alert: str, series: Series, when: str) -> bool:
    """Whether the alert fires, as promtool sees it."""
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    test: dict[str, Any] = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": inputs,
                "alert_rule_test": [{"eval_time": when, "alertname": alert, "exp_alerts": []}],
            }
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump(test))
    done = subprocess.run(
        ["promtool", "test", "rules", file], capture_output=True, text=True, check=False
    )
    text = done.stdout + done.stderr
    assert "SUCCESS" in text or f'alertname="{alert}"' in text or f"alertname: {alert}" in text, (
        text
    )
    return done.returncode != 0


def test_promtool_takes_the_rules() -> None:
    done = subprocess.run(
        ["promtool", "check", "rules", RULES], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_fires_when_it_should(tmp_path: Path, alert: str) -> None:
    series, _, when = CASES[alert]
    assert firing(tmp_path, alert, series, when)


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_is_silent_when_it_should_be(tmp_path: Path, alert: str) -> None:
    _, series, when = CASES[alert]
    assert not firing(tmp_path, alert, series, when)


def test_the_gateways_own_certificate_is_looked_at_and_none_is_no_fault(tmp_path: Path) -> None:
    name = "mixer_certificate_expires_timestamp_seconds"
    for ends, fires in (("500000", True), ("5000000", False), ("0", False)):
        series = gauge(name, GATEWAY, f"{ends}x200")
        assert firing(tmp_path, "MixerCertificateExpires", series, "2h") == fires


def test_every_alert_has_a_section_in_the_runbook() -> None:
    runbook = (CHECKOUT / "docs/runbook.md").read_text()
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", runbook, re.MULTILINE | re.DOTALL))
    assert set(sections) == set(ALERTS)
    for alert, rule in ALERTS.items():
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{alert.lower()}"
        assert rule["labels"]["severity"] in {"page", "ticket"}
        for part in ("**Means:**", "**Look:**", "**Do:**"):
            assert part in sections[alert], alert
