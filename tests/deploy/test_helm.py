"""The Helm chart: linted and rendered by Helm itself, held against the schemas of Kubernetes."""

import re
import subprocess
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from server import settings
from tests.waiting import CHECKOUT

CHART = CHECKOUT / "deploy/helm"
VALUES = {path.stem: path for path in sorted(CHART.glob("values*.yaml"))}
OLDEST, NEWEST = "1.31", "1.37"
# Objects of other projects, whose schemas Kubernetes does not have.
FOREIGN = {"ServiceMonitor", "ScaledObject"}
S3 = {"modelRepository": {"pvc": {"claim": ""}, "s3": {"bucket": "models", "prefix": "a/b/"}}}
IMAGE = {"modelRepository": {"pvc": {"claim": ""}, "image": {"name": "example.org/models:1"}}}
CASES: dict[str, dict[str, Any]] = {
    **{name: yaml.safe_load(path.read_text()) for name, path in VALUES.items()},
    "s3": S3,
    "image": IMAGE,
    "keys": {"gateway": {"keysSecret": "keys", "env": {"MIXER_ACCESS_LOG": "true"}}},
    "closed": {
        "gateway": {"allowedClients": [{"podSelector": {}}]},
        "networkPolicy": {"monitoring": [], "extraEgress": [{"ports": [{"port": 4318}]}]},
    },
}
Object = dict[str, Any]


def render(values: dict[str, Any]) -> list[Object]:
    files = helm_python.Chart.load(CHART).render(values, name="prod", namespace="ml")
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


def environment(deployment: Object) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container(deployment)["env"]}


def settings_of(given: dict[str, str]) -> settings.Settings:
    """As the gateway reads these variables."""
    ours = {name: value for name, value in given.items() if name.startswith(settings.PREFIX)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ours.items():
            patch.setenv(name, value)
        return settings.read([], given)


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
def test_every_container_is_closed(case: str) -> None:
    for each in render(CASES[case]):
        if each["kind"] != "Deployment":
            continue
        pod = each["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for one_of in [*pod["containers"], *pod.get("initContainers", [])]:
            security = one_of["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            limits, requests = one_of["resources"]["limits"], one_of["resources"]["requests"]
            assert "memory" in limits
            for name in limits.keys() & requests.keys():
                assert amount(requests[name]) <= amount(limits[name]), name
            mounted = {mount["name"] for mount in one_of["volumeMounts"]}
            assert mounted <= {volume["name"] for volume in pod["volumes"]}


def amount(text: str) -> float:
    units = {"": 1.0, "m": 1e-3, "Mi": 2.0**20, "Gi": 2.0**30}
    found = re.fullmatch(r"([\d.]+)(m|Mi|Gi|)", str(text))
    assert found, text
    return float(found[1]) * units[found[2]]


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


def test_triton_is_reached_by_gateways_alone() -> None:
    objects = render({"networkPolicy": {"monitoring": []}})
    policy = one(objects, "NetworkPolicy", "triton")["spec"]
    gateways = one(objects, "Deployment", "gateway")["spec"]["selector"]
    assert policy["podSelector"] == one(objects, "Deployment", "triton")["spec"]["selector"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == [{"ports": [{"port": "grpc"}], "from": [{"podSelector": gateways}]}]
    assert policy["egress"] == []
    service = one(objects, "Service", "triton")["spec"]
    assert service["clusterIP"] == "None"
    assert service["selector"] == gateways["matchLabels"] | {
        "app.kubernetes.io/component": "triton"
    }


@pytest.mark.parametrize(
    ("values", "volume", "setup"),
    [
        ({}, {"persistentVolumeClaim": {"claimName": "mixer-models", "readOnly": True}}, None),
        (S3, {"emptyDir": {"sizeLimit": "10Gi"}}, "repository:models/a/b"),
        (IMAGE, {"emptyDir": {"sizeLimit": "10Gi"}}, "/model_repository/."),
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
    objects = render({"gateway": scaled, "triton": scaled})
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
    objects = render({"monitoring": {"dashboard": {"enabled": True}}})
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
        ({"modelRepository": {"pvc": {"claim": ""}}}, "exactly one of .* set are: none"),
        ({"modelRepository": {"s3": {"bucket": "b"}}}, "exactly one of .* set are: pvc, s3"),
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


def test_images_users_and_commands_are_those_of_the_dockerfile() -> None:
    dockerfile = (CHECKOUT / "Dockerfile").read_text()
    stages = re.split(r"^FROM ", dockerfile, flags=re.MULTILINE)
    for values, stage in (({}, "triton"), (CASES["values-gpu"], "triton-nvidia")):
        text = next(part for part in stages if re.match(rf"\S+ AS {stage}\n", part))
        deployment = one(render(values), "Deployment", "triton")
        started = container(deployment)
        assert started["image"] == f"mixer-serving/{stage}:0.1.0"
        listed = re.search(r"^CMD (\[.*\])", text, re.MULTILINE)
        assert listed
        assert started["command"][: len(yaml.safe_load(listed[1]))] == yaml.safe_load(listed[1])
        # The supervisor's own port is asked, on which the command lets it listen.
        ports = {port["name"]: port["containerPort"] for port in started["ports"]}
        asked = started["command"][started["command"].index("--status-port") + 1]
        assert ports["status"] == int(asked)
        for probe, path in (("readinessProbe", "/readyz"), ("livenessProbe", "/livez")):
            assert started[probe]["httpGet"] == {"path": path, "port": "status"}
        user = deployment["spec"]["template"]["spec"]["securityContext"]["runAsUser"]
        own = re.search(r"^USER (\d+):", text, re.MULTILINE)
        shared = re.search(r"useradd --uid (\d+)", dockerfile)
        assert shared
        assert user == int(own[1] if own else shared[1])


def test_a_package_is_whole(tmp_path: Path) -> None:
    """What Helm packs holds the dashboard, not a link to it."""
    archive = Path(helm_python.package(CHART, destination=tmp_path))
    listed = subprocess.run(
        ["tar", "tzvf", archive], capture_output=True, text=True, check=True
    ).stdout
    assert re.search(r"^-.*mixer-serving/dashboards/mixer-serving\.json$", listed, re.MULTILINE)
    assert "values-gpu.yaml" not in listed
