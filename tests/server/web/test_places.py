"""/metrics and /docs at an address of their own, or nowhere."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.stack import Gateway, running_gateway
from tests.waiting import CHECKOUT, wait_for

# Nobody is there, and none of these paths needs one.
ALONE = ("--triton-url", "127.0.0.1:1")
METRICS = ("/metrics",)
DOCS = ("/docs", "/docs/swagger-ui.css", "/openapi.json")
REST = ("/", "/livez", "/models", "/classify", "/docs.css", "/metricsx")


def statuses(url: str, paths: tuple[str, ...]) -> list[int]:
    """Of a GET of each."""
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        return [client.get(path).status_code for path in paths]


def url_of(gateway: Gateway, name: str) -> str:
    """It is told after the gateway's own address, which was waited for."""
    text = rf"/{name} is on (http://[\d.:]+)(?=[\s\"])"
    return wait_for(lambda: re.search(text, gateway.log.read_text()), what=f"/{name}")[1]


USUAL = [200, 200, 503, 405, 404, 404]


def test_here_is_the_default(tmp_path: Path) -> None:
    with running_gateway(tmp_path / "log", *ALONE, ready=False) as gateway:
        assert statuses(gateway.url, METRICS + DOCS) == [200] * 4
        assert statuses(gateway.url, REST) == USUAL
        assert b'href="docs"' in httpx.get(gateway.url, trust_env=False).content
        assert "/docs lists" in httpx.get(f"{gateway.url}/x", trust_env=False).json()["detail"]


def test_off_is_nowhere(tmp_path: Path) -> None:
    flags = (*ALONE, "--metrics", "off", "--docs", "off")
    with running_gateway(tmp_path / "log", *flags, ready=False) as gateway:
        assert statuses(gateway.url, METRICS + DOCS) == [404] * 4
        assert statuses(gateway.url, REST) == USUAL
        assert b"docs" not in httpx.get(gateway.url, trust_env=False).content
        assert "/docs" not in httpx.get(f"{gateway.url}/x", trust_env=False).json()["detail"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_each_has_its_own_address(tmp_path: Path, workers: str) -> None:
    flags = (*ALONE, "--metrics", "127.0.0.1:0", "--docs", "127.0.0.2:0", "--workers", workers)
    with running_gateway(tmp_path / "log", *flags, ready=False) as gateway:
        metrics, docs = url_of(gateway, "metrics"), url_of(gateway, "docs")
        assert len({gateway.url, metrics, docs}) == 3
        assert statuses(gateway.url, METRICS + DOCS) == [404] * 4
        assert statuses(gateway.url, REST) == USUAL
        assert statuses(metrics, METRICS + DOCS + REST) == [200] + [404] * 9
        assert statuses(docs, METRICS + DOCS + REST) == [404] + [200] * 3 + [404] * 6
        # The fast path is no way around it.
        assert httpx.post(f"{metrics}/classify", trust_env=False).status_code == 404
        assert "mixer_requests_total" in httpx.get(f"{metrics}/metrics", trust_env=False).text


def test_both_can_share_one(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = f"127.0.0.1:{free.getsockname()[1]}"
    flags = (*ALONE, "--metrics", place, "--docs", place)
    with running_gateway(tmp_path / "log", *flags, ready=False) as gateway:
        assert url_of(gateway, "metrics") == url_of(gateway, "docs") == f"http://{place}"
        assert statuses(f"http://{place}", METRICS + DOCS) == [200] * 4
        assert statuses(gateway.url, METRICS + DOCS) == [404] * 4


def test_a_taken_address_ends_the_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-m", "server", "--port", "0", "--metrics", place],
            cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {place.rpartition(':')[2]}" in done.stderr
    assert "--metrics" in done.stderr
