"""The project's version stands in one place, and whatever repeats it says the same."""

import email
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from server import __version__
from tests.waiting import CHECKOUT


def test_it_is_a_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("Dockerfile", r"^ARG VERSION=(\S+)$"),
        ("CITATION.cff", r"^version: (\S+)$"),
        ("deploy/kserve/runtime.yaml", r"image: REGISTRY/triton-nvidia:(\S+)$"),
        ("deploy/kserve/inferenceservice.yaml", r"image: REGISTRY/gateway:(\S+)$"),
        ("docker-compose.images.yml", r"\$\{TAG:-([^}]+)\}"),
        ("docs/scaling.md", r"docker push \$IMAGES/\$part:(\S+)$"),
    ],
)
def test_a_repetition_says_the_same(file: str, pattern: str) -> None:
    found = re.findall(pattern, (CHECKOUT / file).read_text(), re.MULTILINE)
    assert set(found) == {__version__}


def test_the_chart_has_it() -> None:
    chart = yaml.safe_load((CHECKOUT / "deploy/helm/Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


def test_the_changelog_has_it_or_what_comes_after_it() -> None:
    headings = re.findall(r"^## (.+)$", (CHECKOUT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased" or headings[0].startswith(f"{__version__} ")


def test_the_packages_metadata_are_those_of_the_lists(tmp_path: Path) -> None:
    """What `pip install .[onnxruntime]` brings is what requirements/ names."""
    source = tmp_path / "source"
    shutil.copytree(CHECKOUT / "requirements", source / "requirements")
    for name in ("pyproject.toml", "README.md", "LICENSE", "server/__init__.py"):
        (source / name).parent.mkdir(exist_ok=True)
        shutil.copy(CHECKOUT / name, source / name)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"),
            *("--no-build-isolation", "--wheel-dir", tmp_path, source),
        ],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith("/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Name"] == "mixer-serving"
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == "<3.15,>=3.11"
    extras = metadata.get_all("Provides-Extra", [])
    assert {"onnxruntime", "export", "reference", "loadtest"} <= set(extras)
    needed = metadata.get_all("Requires-Dist", [])
    assert "fastapi" in needed
    assert 'torch; extra == "export"' in needed
