"""The files for KServe: their pods held against Kubernetes' schemas, and against each other."""

import shlex
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml

from server import settings
from tests.deploy.chart import NEWEST, OLDEST, settings_of
from tests.waiting import CHECKOUT

FOLDER = CHECKOUT / "deploy/kserve"
DOCUMENTS = {
    document["kind"]: document
    for path in FOLDER.glob("*.yaml")
    for document in yaml.safe_load_all(path.read_text())
}
RUNTIME, INFERENCE = DOCUMENTS["ServingRuntime"]["spec"], DOCUMENTS["InferenceService"]
GATEWAY = INFERENCE["spec"]["transformer"]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_what_is_kubernetes_own_fits_its_schemas(version: str) -> None:
    meta = {"name": "x"}
    for part in (RUNTIME, GATEWAY):
        names = {"containers", "volumes", "terminationGracePeriodSeconds"}
        spec = {name: value for name, value in part.items() if name in names}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
        kubernetes_validate.validate(pod, version, strict=True)
    for kind in ("Service", "NetworkPolicy"):
        kubernetes_validate.validate(DOCUMENTS[kind], version, strict=True)


def test_the_parts_find_each_other() -> None:
    name = INFERENCE["metadata"]["name"]
    predictor, service = INFERENCE["spec"]["predictor"], DOCUMENTS["Service"]
    assert predictor["model"]["runtime"] == DOCUMENTS["ServingRuntime"]["metadata"]["name"]
    formats = [each["name"] for each in RUNTIME["supportedModelFormats"]]
    assert predictor["model"]["modelFormat"]["name"] in formats
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"app": f"isvc.{name}-predictor"}
    ports = {port["containerPort"] for port in RUNTIME["containers"][0]["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == ports


def read() -> settings.Settings:
    given = {each["name"]: each["value"] for each in GATEWAY["containers"][0]["env"]}
    return settings_of(given)


def test_the_gateways_settings() -> None:
    (container,) = GATEWAY["containers"]
    assert read().triton_url == f"{DOCUMENTS['Service']['metadata']['name']}:8001"
    assert read().port == container["ports"][0]["containerPort"]
    assert GATEWAY["terminationGracePeriodSeconds"] > read().grace


def test_what_kserve_adds_to_the_command_is_ignored() -> None:
    container: dict[str, Any] = GATEWAY["containers"][0]
    shell, flag, script = container["command"]
    program = shlex.split(script)
    assert program == ["exec", ".venv/bin/python", "-m", "server"]
    added = [
        "--model_name",
        "mixer",
        "--predictor_host",
        "mixer-predictor.ml",
        "--http_port",
        "8080",
    ]
    # The same shell and arguments, around a program that ends at once.
    helped = subprocess.run(
        [shell, flag, f"{script} --help", *added], cwd=CHECKOUT, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert "--triton-url" in helped.stdout
