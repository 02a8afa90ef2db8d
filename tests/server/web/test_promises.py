"""Promises of SECURITY.md that no other test holds."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from server.process.program import warn_if_open
from server.settings import read
from tests.photos import photo
from tests.server.serving.images.bombs.png import png
from tests.stack import DEFAULT_MODEL, Gateway, running_gateway
from tests.waiting import CHECKOUT, wait_for


@dataclass(frozen=True)
class Watched:
    """A gateway that logs each request, and its TMPDIR."""

    gateway: Gateway
    temporary: Path


@pytest.fixture(scope="module")
def watched(model_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    temporary = folder / "tmp"
    temporary.mkdir()
    flags = ("--engine", "onnxruntime", "--repository", str(model_repository))
    options = ("--default-model", DEFAULT_MODEL, "--access-log")
    places = {"TMPDIR": str(temporary)}
    with running_gateway(folder / "log", *flags, *options, environment=places) as gateway:
        yield Watched(gateway, temporary)


def test_images_and_their_names_are_not_kept(watched: Watched) -> None:
    """Small and large ones, in forms and alone, read and refused."""
    url = f"{watched.gateway.url}/classify"
    large = png(3000, 3000, 8, 6, filtered=4)
    for image, status in ((photo(0), 200), (large, 200), (large[:-5000], 422), (b"GIF89a", 422)):
        files = {"image": ("my-holiday.jpg", image, "image/jpeg")}
        with httpx.Client(trust_env=False, timeout=60) as client:
            assert client.post(url, files=files).status_code == status
            raw = {"Content-Type": "application/octet-stream"}
            assert client.post(url, content=image, headers=raw).status_code == status
    assert not list(watched.temporary.rglob("*"))
    # A request is logged after its answer has left.
    log = watched.gateway.log
    wait_for(lambda: log.read_text().count("/classify") >= 8, what="every request in the log")
    assert "my-holiday" not in log.read_text()


@pytest.mark.parametrize(
    ("host", "flags", "said"),
    [
        ("192.0.2.1", [], True),
        ("::", [], True),
        ("127.0.0.1", [], False),
        ("::1", [], False),
        ("192.0.2.1", ["--keys-file", "keys"], False),
    ],
)
def test_beyond_this_machine_without_keys_the_log_says_so(
    host: str, flags: list[str], said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING", "server"):
        warn_if_open(read(flags, {}), host, 8000)
    assert (f"anybody who reaches {host} port 8000 may use" in caplog.text) == said


def test_the_page_shows_labels_as_text() -> None:
    """Its script has no call that reads text as HTML."""
    scripts = [
        path.read_text()
        for path in (CHECKOUT / "server/web").rglob("*")
        if path.suffix in {".html", ".js"}
    ]
    assert any("textContent" in script for script in scripts)
    for call in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert not any(call in script for script in scripts), call


def test_no_telemetry_leaves_onnxruntime() -> None:
    """Whatever the environment says before: the variable is read when onnxruntime is imported."""
    code = "import server.engines.onnxruntime.session, os; print(os.environ[{!r}])"
    name = "ORT_DISABLE_TELEMETRY"
    done = subprocess.run(
        [sys.executable, "-c", code.format(name)],
        cwd=CHECKOUT, env=os.environ | {name: "0"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["1"]
