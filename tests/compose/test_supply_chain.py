"""What goes into the images: files with the hashes of requirements/locked/, on bases by digest."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

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
