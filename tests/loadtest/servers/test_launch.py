"""Servers are waited for by their probe, and end with their last words or by their own handle."""

import asyncio
import os
import sys
from pathlib import Path

import psutil
import pytest

from loadtest.servers import launch
from loadtest.servers.launch import Server, StackError, free_port, get, until

SLOW = """
import http.server, sys, time
from http.server import BaseHTTPRequestHandler
began = time.monotonic()
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        ready = self.path == "/ready" and time.monotonic() > began + 0.5
        self.send_response(200 if ready else 503)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a server that is ready half a second after its start, and one that ends."""
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "broken.py").write_text("print('reading')\nraise SystemExit('no such model')")
    return tmp_path


def test_a_server_is_ready_when_its_probe_says_so(folder: Path) -> None:
    port = free_port()
    with Server(("slow", str(port)), port, "/ready", folder=folder) as server:
        assert get(f"{server.url}/ready")[0] == 200
        assert get(f"{server.url}/other")[0] == 503
        assert asyncio.run(until(server, "/ready", 200, 5)) < 5
        assert asyncio.run(until(server, "/other", 200, 0.2)) == float("inf")
        assert os.getsid(server.pid) == server.pid
        pid = server.pid
    assert not psutil.pid_exists(pid)
    assert get(f"{server.url}/ready")[0] == 0


def test_a_server_that_ends_says_its_last_words(folder: Path) -> None:
    server = Server(("broken",), free_port(), "/", folder=folder)
    with pytest.raises(StackError, match="python -m broken ended: reading no such model"):
        server.start()
    assert server.stop() == 1


def test_a_server_that_is_never_ready_is_not_waited_for(folder: Path) -> None:
    port = free_port()
    server = Server(("slow", str(port)), port, "/other", folder=folder)
    try:
        with pytest.raises(StackError, match=r"python -m slow: not ready within 1 s"):
            server.start(1.0)
    finally:
        server.stop()


def test_one_that_does_not_end_is_killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "STOP_SECONDS", 0.5)
    stubborn = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLOW
    (folder / "stubborn.py").write_text(stubborn)
    port = free_port()
    server = Server(("stubborn", str(port)), port, "/ready", folder=folder)
    server.start()
    assert server.stop() == -9


def test_the_environment_has_none_of_the_gateways_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXER_WORKERS", "7")
    assert not any(name.startswith("MIXER_") for name in launch.environment())
    assert launch.environment()["ORT_DISABLE_TELEMETRY"] == "1"


def test_last_words_are_short() -> None:
    assert launch.last_words("") == "it said nothing"
    assert launch.last_words("a\nb\nc\nd\n") == "b c d"
    assert len(launch.last_words("x" * 5000)) == 600
    assert sys.executable in launch.PYTHON
