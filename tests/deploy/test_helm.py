"""The Helm chart: linted by Helm itself, and held against the schemas of Kubernetes."""

import re
import subprocess
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from server import __version__
from tests.deploy.chart import (
    CASES,
    CHART,
    FOREIGN,
    IMAGES,
    NEWEST,
    NO_EGRESS,
    OLDEST,
    OPEN,
    PVC,
    S3,
    VOLUME,
    container,
    environment,
    one,
    render,
    settings_of,
)
from tests.waiting import CHECKOUT


@pytest.mark.parametrize("case", CASES)
def test_helm_lints_it(case: str) -> None:
    for version in (OLDEST, NEWEST):
        found = helm_python.lint(CHART, CASES[case], strict=True, kube_version=f"v{version}.0")
        assert found["errors"] == []
        assert [message for message in found["messages"] if message["severity"] > 1] == []


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("case", CASES)
def test_every_object_is_one_of_kubernetes(case: str, version: str) -> None:
    objects = render(CASES[case])
    for each in objects:
        if each["kind"] not in FOREIGN:
            kubernetes_validate.validate(each, version, strict=True)
    assert {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"} <= {
        each["kind"] for each in objects
    }


def test_the_oldest_version_is_the_charts() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["kubeVersion"] == f">={OLDEST}.0-0"
    assert kubernetes_validate.latest_version().startswith(NEWEST)


@pytest.mark.parametrize("case", CASES)
def test_the_gateway_is_set_up_with_settings_that_it_has(case: str) -> None:
    deployment = one(render(CASES[case]), "Deployment", "gateway")
    given = environment(deployment)
    assert given["MIXER_TRITON_URL"] == "prod-mixer-serving-triton:8001"
    read = settings_of(given)
    assert read.triton_url == given["MIXER_TRITON_URL"]
    # No request is cut off: the pod may take longer to end than the gateway does.
    pod = deployment["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > read.grace
    probes = container(deployment)
    assert probes["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert probes["readinessProbe"]["httpGet"]["path"] == "/readyz"


@pytest.mark.parametrize(
    ("values", "volume", "setup"),
    [
        (PVC, {"persistentVolumeClaim": {"claimName": "mixer-models", "readOnly": True}}, None),
        (
            VOLUME,
            {
                "image": {
                    "reference": f"x.org/models:{__version__}",
                    "pullPolicy": "IfNotPresent",
                }
            },
            None,
        ),
        (S3, {"emptyDir": {"sizeLimit": "10Gi"}}, "repository:models/a/b"),
        (OPEN, {"emptyDir": {"sizeLimit": "10Gi"}}, "/model_repository/."),
    ],
)
def test_the_model_repository(
    values: dict[str, Any], volume: dict[str, Any], setup: str | None
) -> None:
    pod = one(render(values), "Deployment", "triton")["spec"]["template"]["spec"]
    assert {"name": "models", **volume} in pod["volumes"]
    first = pod.get("initContainers", [])
    assert len(first) == (setup is not None)
    if setup:
        assert setup in [*first[0].get("args", []), *first[0].get("command", [])]


@pytest.mark.parametrize("kind", ["hpa", "keda"])
def test_gateway_and_triton_scale_apart(kind: str) -> None:
    scaled = {"autoscaling": {"kind": kind}}
    objects = render(OPEN | {"gateway": scaled, "triton": scaled})
    for component, stage in (("gateway", "decod"), ("triton", "inference")):
        # The autoscaler alone sets the number: an upgrade must not reset it.
        assert "replicas" not in one(objects, "Deployment", component)["spec"]
        name = {"hpa": "HorizontalPodAutoscaler", "keda": "ScaledObject"}[kind]
        scaler = one(objects, name, component)
        assert scaler["spec"]["scaleTargetRef"]["name"] == scaler["metadata"]["name"]
        assert stage in yaml.safe_dump(scaler["spec"])
    metrics = (CHECKOUT / "docs/scaling.md").read_text()
    assert "mixer_pictures_in_inference" in metrics
    assert "mixer_pictures_in_decoding" in metrics


def test_the_dashboard_is_that_of_docker_compose() -> None:
    objects = render(OPEN | {"monitoring": {"dashboard": {"enabled": True}}})
    data = one(objects, "ConfigMap", "dashboard")["data"]
    folder = CHECKOUT / "deploy/observability/grafana/dashboards"
    assert data == {path.name: path.read_text() for path in folder.glob("*.json")}
    assert data


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"gatway": {}}, "'gatway' not allowed"),
        ({"triton": {"replica": 3}}, "'replica' not allowed"),
        ({"triton": {"replicas": -1}}, "minimum: got -1, want 0"),
        ({"triton": {"runAsUser": 0}}, "minimum: got 0, want 1"),
        ({"gateway": {"decodeThreads": "two"}}, "got string, want integer"),
        ({"gateway": {"autoscaling": {"kind": "vpa"}}}, "'none', 'hpa', 'keda'"),
        (IMAGES, "keysSecret: name the Secret with the API keys, or set allowAnonymous"),
        (OPEN | {"requireDigests": True}, "requireDigests: the image .* needs its digest"),
        (OPEN | {"gateway": {"allowedClients": []}}, "minItems: got 0, want 1"),
        (OPEN | {"gateway": {"image": {"digest": "latest"}}}, "does not match pattern"),
        (OPEN | {"modelRepository": {"image": {"repository": ""}}}, "exactly one of .*: none"),
        (OPEN | {"modelRepository": {"s3": {"bucket": "b"}}}, "exactly one of .*: s3, image"),
        (OPEN | {"triton": {"engines": {"warmUp": True}}}, "warmUp needs triton.engines.claim"),
        (NO_EGRESS, "s3.egress: name the store's network"),
        (OPEN | {"entry": {"ingress": {"enabled": True}}}, "API keys do not cross a network"),
    ],
)
def test_values_that_do_not_fit_are_refused(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(helm_python.HelmError, match=complaint):
        render(values)


def test_the_schema_knows_every_value() -> None:
    def names(schema: dict[str, Any], values: dict[str, Any], path: str = "") -> None:
        if not schema.get("additionalProperties", True):
            assert values.keys() <= schema["properties"].keys(), path
            for name, value in values.items():
                if isinstance(value, dict):
                    names(schema["properties"][name], value, f"{path}.{name}")

    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    names(schema, yaml.safe_load((CHART / "values.yaml").read_text()))


def test_a_package_is_whole(tmp_path: Path) -> None:
    """What Helm packs holds the dashboard, not a link to it."""
    archive = Path(helm_python.package(CHART, destination=tmp_path))
    listed = subprocess.run(
        ["tar", "tzvf", archive], capture_output=True, text=True, check=True
    ).stdout
    assert re.search(r"^-.*mixer-serving/dashboards/mixer-serving\.json$", listed, re.MULTILINE)
    assert "values-gpu.yaml" not in listed


def test_the_alerts_are_those_of_docker_compose() -> None:
    rules = one(render(CASES["values-gpu"]), "PrometheusRule", "rules")["spec"]
    file = CHECKOUT / "deploy/observability/rules/mixer-serving.yml"
    assert rules == yaml.safe_load(file.read_text())
