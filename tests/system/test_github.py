"""The files that GitHub reads, held against the schemas of check-jsonschema and this project."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.waiting import CHECKOUT

GITHUB = CHECKOUT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = ["ISSUE_TEMPLATE/bug.yml", "ISSUE_TEMPLATE/idea.yml"]
SCHEMAS = {
    "vendor.github-workflows": WORKFLOWS,
    "vendor.dependabot": [GITHUB / "dependabot.yml"],
    "vendor.github-issue-forms": [GITHUB / name for name in FORMS],
    "vendor.github-issue-config": [GITHUB / "ISSUE_TEMPLATE/config.yml"],
    "vendor.citation-file-format": [CHECKOUT / "CITATION.cff"],
}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_each_fits_its_schema(schema: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *SCHEMAS[schema]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_what_make_and_ci_have(workflow: Path) -> None:
    text = workflow.read_text()
    makefile = (CHECKOUT / "Makefile").read_text()
    for target in re.findall(r"run: make ([\w-]+)$", text, re.MULTILINE):
        room = target.removeprefix("test-")
        known = re.search(rf"^{target}:|^ROOMS := .*\b{room}\b", makefile, re.MULTILINE)
        assert known, target
    for script in re.findall(r"run: (\.ci/\S+)", text):
        assert (CHECKOUT / script).is_file()


def test_the_rooms_of_ci_are_those_of_make() -> None:
    matrix = yaml.safe_load((GITHUB / "workflows/ci.yml").read_text())["jobs"]["rooms"]["strategy"]
    makefile = (CHECKOUT / "Makefile").read_text()
    rooms = re.search(r"^ROOMS := (.+)$", makefile, re.MULTILINE)
    minors = re.search(r"^MINORS := (.+)$", makefile, re.MULTILINE)
    assert rooms
    assert minors
    assert matrix["matrix"]["room"] == rooms[1].split()
    assert matrix["matrix"]["python"] == [f"3.{minor}" for minor in minors[1].split()]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_foreign_actions_are_pinned_and_rights_are_few(workflow: Path) -> None:
    content = yaml.safe_load(workflow.read_text())
    assert content["permissions"] == {"contents": "read"}
    for job in content["jobs"].values():
        for step in job.get("steps", []):
            used = step.get("uses", "actions/")
            assert used.startswith("actions/") or re.search(r"@[0-9a-f]{40}$", used), used


def test_the_targets_of_a_release_are_stages_of_the_dockerfile() -> None:
    stages = re.findall(r"^FROM \S+ AS (\S+)$", (CHECKOUT / "Dockerfile").read_text(), re.MULTILINE)
    jobs = yaml.safe_load((GITHUB / "workflows/release.yml").read_text())["jobs"]
    targets = jobs["build"]["strategy"]["matrix"]["target"]
    assert set(targets) <= set(stages)
    (loop,) = re.findall(r"for target in (.+); do", (GITHUB / "workflows/release.yml").read_text())
    assert loop.split() == targets
