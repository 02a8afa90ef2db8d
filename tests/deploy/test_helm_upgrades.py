"""The chart's upgrades: what starts a roll-out, how it goes, and what must not change."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.chart import CASES, CHART, DIGEST, OPEN, Object, one, render


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
