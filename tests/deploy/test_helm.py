"""The Helm chart: linted and rendered by Helm itself, held against the schemas of Kubernetes."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml
from helm_python.errors import HelmRenderError

from server import __version__, settings
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
    for pod in pods(render(CASES[case])):
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
            mounted = {mount["name"] for mount in one_of.get("volumeMounts", [])}
            assert mounted <= {volume["name"] for volume in pod.get("volumes", [])}


def pods(objects: list[Object]) -> list[Object]:
    """What every object that starts a pod says of it."""
    with_template = [
        each["spec"]["template"]["spec"] for each in objects if "template" in each.get("spec", {})
    ]
    assert len(with_template) >= 2
    return with_template + [each["spec"] for each in objects if each["kind"] == "Pod"]


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
    objects = render(OPEN | {"networkPolicy": {"monitoring": []}})
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


def test_images_users_and_commands_are_those_of_the_dockerfile() -> None:
    dockerfile = (CHECKOUT / "Dockerfile").read_text()
    stages = re.split(r"^FROM ", dockerfile, flags=re.MULTILINE)
    for values, stage in (
        (CASES["values-wheel"], "triton"),
        (OPEN, "triton-nvidia"),
        (CASES["values-gpu"], "triton-nvidia"),
    ):
        text = next(part for part in stages if re.match(rf"\S+ AS {stage}\n", part))
        deployment = one(render(values), "Deployment", "triton")
        started = container(deployment)
        assert started["image"] == f"registry.example.org/mixer-serving/{stage}:{__version__}"
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


def test_other_models_start_a_roll_out_and_the_same_ones_do_not() -> None:
    def template(models: dict[str, Any]) -> Object:
        values = OPEN | {"modelRepository": models}
        found = one(render(values), "Deployment", "triton")["spec"]["template"]
        assert isinstance(found, dict)
        return found

    first = template({"image": {"digest": DIGEST}})
    assert template({"image": {"digest": DIGEST}}) == first
    assert template({"image": {"digest": DIGEST.replace("0", "1")}}) != first
    assert template({"digest": "a"})["metadata"] != template({"digest": "b"})["metadata"]


@pytest.mark.parametrize(("rollout", "unavailable", "surge"), [("spare", 0, 1), ("inPlace", 1, 0)])
def test_one_replica_is_replaced_at_a_time(rollout: str, unavailable: int, surge: int) -> None:
    spec = one(render(OPEN | {"triton": {"rollout": rollout}}), "Deployment", "triton")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": unavailable, "maxSurge": surge}
    assert spec["minReadySeconds"] > 0
    assert spec["progressDeadlineSeconds"] > 0


def test_what_an_upgrade_cannot_change_stays() -> None:
    """Kubernetes refuses another selector of a Deployment, or another clusterIP of a Service."""
    before, after = render(OPEN), render(CASES["values-gpu"])
    for kind, part in (("Deployment", "gateway"), ("Deployment", "triton"), ("Service", "triton")):
        one_of, other = one(before, kind, part)["spec"], one(after, kind, part)["spec"]
        assert one_of["selector"] == other["selector"]
        assert one_of.get("clusterIP") == other.get("clusterIP")


def test_each_part_has_an_account_of_its_own_without_a_token() -> None:
    objects = render(OPEN)
    for part in ("gateway", "triton"):
        account = one(objects, "ServiceAccount", part)
        assert account["automountServiceAccountToken"] is False
        pod = one(objects, "Deployment", part)["spec"]["template"]["spec"]
        assert pod["serviceAccountName"] == account["metadata"]["name"]


def test_everything_runs_by_its_digest_where_that_is_required() -> None:
    images = {"image": {"digest": DIGEST}}
    values = OPEN | {
        "requireDigests": True, "gateway": images, "triton": images, "modelRepository": images,
    }  # fmt: skip
    for part in ("gateway", "triton"):
        pod = one(render(values), "Deployment", part)["spec"]["template"]["spec"]
        for each in [*pod["containers"], *pod.get("initContainers", [])]:
            assert each["image"].endswith(f"@{DIGEST}")


def test_the_entry_waits_as_long_as_the_gateway_may_take() -> None:
    objects = render(CASES["entry"])
    settings_read = settings_of(environment(one(objects, "Deployment", "gateway")))
    longest = settings_read.read_timeout + settings_read.longest_request
    route, ingress = one(objects, "HTTPRoute", "gateway"), one(objects, "Ingress", "gateway")
    assert int(route["spec"]["rules"][0]["timeouts"]["request"].rstrip("s")) > longest
    notes = ingress["metadata"]["annotations"]
    nginx = "nginx.ingress.kubernetes.io/proxy"
    assert int(notes[f"{nginx}-read-timeout"]) > longest
    assert int(notes[f"{nginx}-body-size"]) == settings_read.max_body_bytes
    assert notes["cert-manager.io/cluster-issuer"] == "acme"
    assert ingress["spec"]["tls"] == [{"hosts": ["mixer.example.org"], "secretName": "mixer-tls"}]


def test_the_alerts_are_those_of_docker_compose() -> None:
    rules = one(render(CASES["values-gpu"]), "PrometheusRule", "rules")["spec"]
    file = CHECKOUT / "deploy/observability/rules/mixer-serving.yml"
    assert rules == yaml.safe_load(file.read_text())


def images_of(objects: list[Object]) -> list[str]:
    return [
        container["image"]
        for pod in pods(objects)
        for container in [*pod["containers"], *pod.get("initContainers", [])]
    ]


def test_no_image_has_a_name_that_somebody_else_could_own() -> None:
    with pytest.raises(HelmRenderError, match="images: say where the images of this project lie"):
        render({"allowAnonymous": True})
    for image in images_of(render(OPEN)):
        assert image.startswith("registry.example.org/mixer-serving/")
    own = render(
        OPEN
        | {
            "images": "other.example.org:5000/a/",
            "gateway": {"image": {"repository": "x.example.org/y"}},
        }
    )
    assert {image.rpartition(":")[0] for image in images_of(own)} == {
        "x.example.org/y",
        "other.example.org:5000/a/triton-nvidia",
        "other.example.org:5000/a/models",
    }


def test_the_gateway_speaks_tls_and_all_that_ask_it_know() -> None:
    objects = render(CASES["tls"])
    deployment = one(objects, "Deployment", "gateway")
    found = settings_of(environment(deployment))
    assert (str(found.tls_cert), str(found.tls_key)) == ("/tls/tls.crt", "/tls/tls.key")
    started = container(deployment)
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        assert started[probe]["httpGet"]["scheme"] == "HTTPS"
    (port,) = one(objects, "Service", "gateway")["spec"]["ports"]
    assert port["appProtocol"] == "https"
    notes = one(objects, "Ingress", "gateway")["metadata"]["annotations"]
    assert notes["nginx.ingress.kubernetes.io/backend-protocol"] == "HTTPS"
    (endpoint,) = one(objects, "ServiceMonitor", "gateway")["spec"]["endpoints"]
    assert endpoint["scheme"] == "https"
    assert "scheme" not in one(objects, "ServiceMonitor", "triton")["spec"]["endpoints"][0]
    assert one(objects, "Pod", "test")["spec"]["containers"][0]["args"][0].startswith("https://")


def test_engines_are_built_before_the_first_triton_is_replaced() -> None:
    objects = render(CASES["warm-up"])
    job, triton = one(objects, "Job", "engines"), one(objects, "Deployment", "triton")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-upgrade"
    theirs, ours = job["spec"]["template"]["spec"], triton["spec"]["template"]["spec"]
    # The same models, the same volume, the same program: what is built there is found here.
    for part in ("volumes", "initContainers", "securityContext", "serviceAccountName"):
        assert theirs[part] == ours[part]
    for part in ("image", "volumeMounts", "resources"):
        assert theirs["containers"][0][part] == ours["containers"][0][part]
    assert "--build-only" in theirs["containers"][0]["command"]
    # No Service sends it requests.
    service = one(objects, "Service", "triton")["spec"]["selector"]
    assert not service.items() <= job["spec"]["template"]["metadata"]["labels"].items()
    assert not any(each["kind"] == "Job" for each in render(OPEN))


@pytest.mark.parametrize("case", ["values", "keys"])
def test_helm_test_is_let_in_and_knows_whether_keys_are_asked_for(case: str) -> None:
    objects = render(CASES[case])
    pod = one(objects, "Pod", "test")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    url, keys = pod["spec"]["containers"][0]["args"]
    gateway = one(objects, "Service", "gateway")
    (port,) = gateway["spec"]["ports"]
    assert url == f"http://{gateway['metadata']['name']}:{port['port']}"
    assert keys == ("closed" if case == "keys" else "open")
    let_in = one(objects, "NetworkPolicy", "gateway")["spec"]["ingress"][0]["from"]
    labels = pod["metadata"]["labels"].items()
    assert any(
        peer.get("podSelector", {}).get("matchLabels", {"": ""}).items() <= labels
        for peer in let_in
        if "namespaceSelector" not in peer
    )
    assert (CHECKOUT / "deploy/gateway" / pod["spec"]["containers"][0]["command"][-1]).is_file()


# What Kubernetes does not let an upgrade change, by kind.
FIXED = {
    "Deployment": [("spec", "selector")],
    "Service": [("spec", "clusterIP")],
    "HorizontalPodAutoscaler": [("spec", "scaleTargetRef")],
    "ScaledObject": [("spec", "scaleTargetRef")],
}


@pytest.mark.parametrize("case", CASES)
def test_an_upgrade_and_its_rollback_change_what_they_should(case: str, tmp_path: Path) -> None:
    """A later version of the chart beside this one, and back."""
    later = tmp_path / "helm"
    shutil.copytree(CHART, later)
    chart = yaml.safe_load((later / "Chart.yaml").read_text())
    chart |= {"version": "9.9.9", "appVersion": "9.9.9"}
    (later / "Chart.yaml").write_text(yaml.safe_dump(chart))
    before, after = by_name(render(CASES[case])), by_name(render(CASES[case], later))
    assert before.keys() == after.keys()  # nothing is left behind, or missing after a rollback
    for key, old in before.items():
        for path in FIXED.get(key[0], []):
            assert at(old, path) == at(after[key], path), key
        found = differences(old, after[key])
        labels = {"metadata.labels.helm.sh/chart", "metadata.labels.app.kubernetes.io/version"}
        allowed = labels | {f"spec.template.{each}" for each in labels}
        images = {each for each in found if each.endswith(".image") or each.endswith(".reference")}
        models = {"spec.template.metadata.annotations.mixer-serving/models"}
        assert found - images - allowed - models == set(), key
        if key[0] == "Deployment":
            assert images  # a roll-out
    assert by_name(render(CASES[case])) == before


def by_name(objects: list[Object]) -> dict[tuple[str, str], Object]:
    found = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    assert len(found) == len(objects)
    return found


def at(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = value.get(name, {})
    return value


def differences(one: Any, other: Any, path: str = "") -> set[str]:
    """The paths at which two documents differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {
            each
            for name in one.keys() | other.keys()
            for each in differences(one.get(name), other.get(name), f"{path}.{name}".strip("."))
        }
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return {each for i, (a, b) in pairs for each in differences(a, b, f"{path}.{i}")}
    return set() if one == other else {path}
