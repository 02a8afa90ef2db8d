"""The Helm chart for tests: values of each kind, and what Helm renders from them."""

from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from server import settings
from tests.waiting import CHECKOUT

CHART = CHECKOUT / "deploy/helm"
VALUES = {path.stem: path for path in sorted(CHART.glob("values*.yaml"))}
OLDEST, NEWEST = "1.31", "1.37"
# Objects of other projects, whose schemas Kubernetes does not have.
FOREIGN = {"ServiceMonitor", "ScaledObject", "HTTPRoute", "PrometheusRule"}
IMAGES = {"images": "registry.example.org/mixer-serving"}
OPEN: dict[str, Any] = IMAGES | {"allowAnonymous": True}
EGRESS = [{"to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}], "ports": [{"port": 443}]}]
STORE = {"bucket": "models", "prefix": "a/b/", "egress": EGRESS}
NO_EGRESS = OPEN | {"modelRepository": {"image": {"repository": ""}, "s3": {"bucket": "b"}}}
S3 = OPEN | {"modelRepository": {"image": {"repository": ""}, "s3": STORE}}
PVC = OPEN | {"modelRepository": {"image": {"repository": ""}, "pvc": {"claim": "mixer-models"}}}
VOLUME = OPEN | {
    "modelRepository": {"image": {"repository": ""}, "imageVolume": {"repository": "x.org/models"}}
}
ANYBODY = {"values", "values-wheel"}  # the other files name a Secret with keys
DIGEST = f"sha256:{'0' * 64}"
CASES: dict[str, dict[str, Any]] = {
    **{
        name: yaml.safe_load(path.read_text()) | (OPEN if name in ANYBODY else IMAGES)
        for name, path in VALUES.items()
    },
    "s3": S3,
    "pvc": PVC,
    "in place": OPEN | {"triton": {"rollout": "inPlace", "priorityClassName": "high"}},
    "entry": OPEN
    | {
        "entry": {
            "hosts": ["mixer.example.org"],
            "httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]},
            "ingress": {"enabled": True, "tlsSecret": "mixer-tls", "certManagerIssuer": "acme"},
        }
    },
    "keys": IMAGES | {"gateway": {"keysSecret": "keys", "env": {"MIXER_ACCESS_LOG": "true"}}},
    "tls": IMAGES
    | {
        "gateway": {"keysSecret": "keys", "tlsSecret": "mixer-tls"},
        "monitoring": {"serviceMonitor": {"enabled": True}},
        "entry": {
            "hosts": ["mixer.example.org"],
            "ingress": {"enabled": True, "tlsSecret": "mixer-tls"},
        },
    },
    "warm-up": OPEN | {"triton": {"engines": {"claim": "engines", "warmUp": True}}},
    "closed": OPEN
    | {
        "gateway": {"allowedClients": [{"podSelector": {}}]},
        "networkPolicy": {"monitoring": [], "extraEgress": [{"ports": [{"port": 4318}]}]},
    },
}
Object = dict[str, Any]


def render(values: dict[str, Any], chart: Path = CHART) -> list[Object]:
    files = helm_python.Chart.load(chart).render(values, name="prod", namespace="ml")
    return [
        document
        for name, text in files.items()
        if name.endswith(".yaml")
        for document in yaml.safe_load_all(text)
        if document
    ]


def one(objects: list[Object], kind: str, component: str) -> Object:
    name = f"prod-mixer-serving-{component}"
    (found,) = (o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name))
    return found


def container(deployment: Object) -> Object:
    (found,) = deployment["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def pods(objects: list[Object]) -> list[Object]:
    """What every object that starts a pod says of it."""
    with_template = [
        each["spec"]["template"]["spec"] for each in objects if "template" in each.get("spec", {})
    ]
    assert len(with_template) >= 2
    return with_template + [each["spec"] for each in objects if each["kind"] == "Pod"]


def environment(deployment: Object) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container(deployment)["env"]}


def settings_of(given: dict[str, str]) -> settings.Settings:
    """As the gateway reads these variables."""
    ours = {name: value for name, value in given.items() if name.startswith(settings.PREFIX)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ours.items():
            patch.setenv(name, value)
        return settings.read([], given)
