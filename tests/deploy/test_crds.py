"""The chart's custom resources and KServe's, held against their published definitions.

KEDA's, the Prometheus operator's and Gateway API's come as packages that are made from the
projects' own sources; tests/deploy/crds/ names them with their hashes. KServe's are the types of
its Python client, which is made from the same sources as its definitions.
"""

import ast
import copy
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.chart import CASES, FOREIGN, render
from tests.deploy.test_kserve import DOCUMENTS
from tests.waiting import CHECKOUT

pytestmark = pytest.mark.timeout(400)  # registries of packages are asked, over any network
CRDS = CHECKOUT / "tests/deploy/crds"
KSERVE = "kserve==0.21.0"
Object = dict[str, Any]
Check = Callable[[list[Object]], list[str]]


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Check:
    """Says what is wrong with each object."""
    if shutil.which("npm") is None:
        pytest.skip("needs Node.js with npm")
    folder = tmp_path_factory.mktemp("crds") / "crds"
    shutil.copytree(CRDS, folder, ignore=shutil.ignore_patterns("node_modules"))
    subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"],
        cwd=folder,
        check=True,
    )

    def run(objects: list[Object]) -> list[str]:
        done = subprocess.run(
            ["node", "check.mjs"], cwd=folder, input=json.dumps(objects),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: list[str] = json.loads(done.stdout)
        return found

    return run


def foreign() -> list[Object]:
    """Every custom resource of every case."""
    return [each for values in CASES.values() for each in render(values) if each["kind"] in FOREIGN]


def test_every_custom_resource_is_as_defined(check: Check) -> None:
    objects = foreign()
    assert {each["kind"] for each in objects} == FOREIGN
    assert check(objects) == [""] * len(objects)


def test_the_definitions_find_what_is_wrong(check: Check) -> None:
    first = {each["kind"]: each for each in foreign()}
    spoilt = []
    for kind, path, value in (
        ("ServiceMonitor", ("spec", "endpoints", 0, "intervall"), "15s"),
        ("ServiceMonitor", ("spec", "endpoints", 0, "interval"), "soon"),
        ("ServiceMonitor", ("spec", "selector"), None),
        ("ScaledObject", ("spec", "maxReplicas"), 3),
        ("ScaledObject", ("spec", "triggers", 0, "metadata", "threshold"), 3),
        ("HTTPRoute", ("spec", "rules", 0, "timeouts", "request"), 30),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0, "expr"), None),
    ):
        changed = copy.deepcopy(first[kind])
        part: Any = changed
        for step in path[:-1]:
            part = part[step]
        if value is None:
            del part[path[-1]]
        else:
            part[path[-1]] = value
        spoilt.append(changed)
    found = check(spoilt)
    assert all(found), found


@pytest.fixture(scope="module")
def types(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """The fields of each type of KServe's client, by their names in YAML."""
    folder = tmp_path_factory.mktemp("kserve")
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder))
    subprocess.run([*pip, KSERVE], check=True)
    (wheel,) = folder.glob("*.whl")
    found = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if Path(name).match("kserve/models/v*.py"):
                (made,) = (
                    each
                    for each in ast.parse(archive.read(name)).body
                    if isinstance(each, ast.ClassDef)
                )
                tables = {
                    ast.unparse(each.targets[0]): ast.literal_eval(each.value)
                    for each in made.body
                    if isinstance(each, ast.Assign)
                    and ast.unparse(each.targets[0]) in {"openapi_types", "attribute_map"}
                }
                names = tables["attribute_map"]
                found[made.name] = {names[k]: v for k, v in tables["openapi_types"].items()}
    return found


SIMPLE: dict[str, tuple[type, ...]] = {
    "str": (str,), "int": (int,), "bool": (bool,), "float": (int, float),
}  # fmt: skip


def faults(value: Any, kind: str, types: dict[str, dict[str, str]], path: str) -> list[str]:
    """What of a document is not of its type; Kubernetes' own types are held elsewhere."""
    if kind.startswith("list["):
        if not isinstance(value, list):
            return [f"{path} is no list"]
        return [
            each
            for i, item in enumerate(value)
            for each in faults(item, kind[5:-1], types, f"{path}[{i}]")
        ]
    if kind in SIMPLE:
        return [] if isinstance(value, SIMPLE[kind]) else [f"{path} is no {kind}"]
    if kind not in types:
        return []
    if not isinstance(value, dict):
        return [f"{path} is no object"]
    fields = types[kind]
    return [
        each
        for name, item in value.items()
        for each in (
            faults(item, fields[name], types, f"{path}.{name}")
            if name in fields
            else [f"{path}.{name} is not known"]
        )
    ]


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        ("InferenceService", "V1beta1InferenceService"),
        ("ServingRuntime", "V1alpha1ServingRuntime"),
    ],
)
def test_kserves_objects_are_as_its_client_has_them(
    types: dict[str, dict[str, str]], kind: str, made: str
) -> None:
    document = DOCUMENTS[kind]
    version = document["apiVersion"].rpartition("/")[2]
    assert made.lower() == f"{version}{kind}".lower()
    assert faults(document, made, types, kind) == []
    spoilt = copy.deepcopy(document)
    spoilt["spec"]["replicass"] = 1
    assert faults(spoilt, made, types, kind) == [f"{kind}.spec.replicass is not known"]
