"""The chart's pods: what they may do, and which images and commands they run."""

import re

import pytest
import yaml
from helm_python.errors import HelmRenderError

from server import __version__
from tests.deploy.chart import CASES, DIGEST, OPEN, Object, container, one, pods, render
from tests.waiting import CHECKOUT


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


def amount(text: str) -> float:
    units = {"": 1.0, "m": 1e-3, "Mi": 2.0**20, "Gi": 2.0**30}
    found = re.fullmatch(r"([\d.]+)(m|Mi|Gi|)", str(text))
    assert found, text
    return float(found[1]) * units[found[2]]


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
