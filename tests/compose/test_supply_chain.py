"""What goes into the images: files of the locks, by hash, on bases by digest; and their SBOM."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from server import __version__
from tests.compose.stack import BASE_IMAGE, missing, run
from tests.waiting import CHECKOUT

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.timeout(900),
]
# It takes packages from a folder and nowhere else.
OFFLINE = f"""
FROM {BASE_IMAGE}
COPY wheels /wheels
RUN printf '[global]\\nno-index = true\\nfind-links = /wheels\\n' >/etc/pip.conf
"""
# A package of Python or of Debian: "pypi" or "deb", its name and its version.
Package = tuple[str, str, str]
# What a Python finds installed, one name and version a line.
INSTALLED = (
    "from importlib.metadata import distributions\n"
    "for each in distributions(): print(each.name, each.version)"
)


@pytest.fixture(scope="module")
def gateway() -> Iterator[str]:
    """The name of the gateway's image, which this builds."""
    name = f"mixer-serving-test-sbom-{os.getpid()}"
    base = ("--build-arg", f"PYTHON_IMAGE={BASE_IMAGE}")
    run("docker", "build", "--quiet", *base, "--target", "gateway", "--tag", name, ".")
    yield name
    run("docker", "image", "rm", "--force", name, check=False)


@pytest.fixture(scope="module")
def sbom(gateway: str) -> set[Package]:
    """The packages that Syft finds in it; Syft is what `docker buildx build --sbom=true` runs."""
    syft = str(Path(sys.executable).with_name("syft"))
    quiet = {"SYFT_CHECK_FOR_APP_UPDATE": "false"}
    done = run(syft, "scan", f"docker:{gateway}", "-o", "spdx-json", "--quiet", variables=quiet)
    return {
        package_of(kind, package["name"], package["versionInfo"])
        for package in json.loads(done.stdout)["packages"]
        for reference in package.get("externalRefs", [])
        for kind in re.findall(r"^pkg:(pypi|deb)/", reference["referenceLocator"])
    }


def package_of(kind: str, name: str, version: str) -> Package:
    return kind, str(canonicalize_name(name)) if kind == "pypi" else name, version


def of_python(packages: set[Package]) -> set[Package]:
    return {package for package in packages if package[0] == "pypi"}


def printed(kind: str, image: str, *command: str) -> set[Package]:
    """The packages whose names and versions a command prints in a container."""
    lines = run("docker", "run", "--rm", "--entrypoint", command[0], image, *command[1:]).stdout
    return {package_of(kind, *line.split()) for line in lines.splitlines()}


def test_the_sbom_lists_every_package_of_python_and_they_are_the_locks(
    gateway: str, sbom: set[Package]
) -> None:
    lines = (CHECKOUT / "requirements/locked/serve.txt").read_text().splitlines()
    pins = [Requirement(line.rstrip("\\ ")) for line in lines if line[:1].isalnum()]
    python = {"python_version": "3.11", "python_full_version": "3.11.0"}
    locked = {
        package_of("pypi", pin.name, str(pin.specifier).removeprefix("=="))
        for pin in pins
        if pin.marker is None or pin.marker.evaluate(python)
    }
    installed = printed("pypi", gateway, "/opt/mixer-serving/.venv/bin/python", "-c", INSTALLED)
    of_the_base = printed("pypi", gateway, "/usr/local/bin/python3", "-c", INSTALLED)
    assert len(locked) > 20
    assert of_python(sbom) == installed | of_the_base == locked


def test_the_sbom_lists_every_package_of_debian(gateway: str, sbom: set[Package]) -> None:
    asked = ("dpkg-query", "--show", "--showformat", "${Package} ${Version}\n")
    installed = printed("deb", gateway, *asked)
    assert len(installed) > 50
    assert sbom - of_python(sbom) == installed


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the gateway's image installs, as files."""
    folder = tmp_path_factory.mktemp("offline") / "wheels"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes"),
            *("--only-binary", ":all:", "--python-version", "3.11", "--dest", folder),
            *("-r", CHECKOUT / "requirements/locked/serve.txt"),
        ],
        check=True,
    )
    return folder


@pytest.fixture
def tag() -> Iterator[str]:
    name = "mixer-serving-test-offline"
    yield name
    run("docker", "image", "rm", "--force", name, check=False)


def build_gateway(wheels: Path, tag: str) -> subprocess.CompletedProcess[str]:
    """Build the stage that installs packages, from `wheels` alone."""
    (wheels.parent / "Dockerfile").write_text(OFFLINE)
    run("docker", "build", "--quiet", "--tag", tag, str(wheels.parent))
    return run(
        *("docker", "build", "--progress", "plain", "--target", "gateway-build", "--no-cache"),
        *("--build-arg", f"PYTHON_IMAGE={tag}", str(CHECKOUT)),
        check=False,
    )


def test_the_files_of_the_lock_are_installed(wheels: Path, tag: str) -> None:
    done = build_gateway(wheels, tag)
    assert done.returncode == 0, done.stderr


def test_a_file_with_one_changed_byte_is_refused(wheels: Path, tag: str, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(wheels, tmp_path / "wheels"))
    (wheel,) = changed.glob("h11-*.whl")
    data = bytearray(wheel.read_bytes())
    data[len(data) // 2] ^= 1
    wheel.write_bytes(data)
    done = build_gateway(changed, tag)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert "h11" in done.stderr


def test_the_base_is_named_by_its_digest() -> None:
    """Under the name that the tests build on where no registry is reached."""
    (base,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)", (CHECKOUT / "Dockerfile").read_text(), re.M)
    assert re.fullmatch(re.escape(BASE_IMAGE) + "@sha256:[0-9a-f]{64}", base)


def test_images_of_a_release_are_named_by_whoever_pulls_them() -> None:
    files = ("-f", "docker-compose.yml", "-f", "docker-compose.images.yml")
    compose = ("docker", "compose", *files, "--profile", "export", "config")
    done = run(*compose, check=False, variables={"IMAGES": ""})
    assert done.returncode != 0
    assert "is where the images lie" in done.stderr
    services = yaml.safe_load(run(*compose, variables={"IMAGES": "x.example.org/a"}).stdout)[
        "services"
    ]
    for name in ("gateway", "triton", "export"):
        assert services[name]["image"] == f"x.example.org/a/{name}:{__version__}"
        assert "build" not in services[name]
