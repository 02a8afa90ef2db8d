"""server/web/api_keys.py: the file, and what a gateway with one lets pass."""

import asyncio
import dataclasses
import hashlib
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from server.web import api_keys as keys
from tests import stack
from tests.photos import photo
from tests.stack import Gateway, Guarded
from tests.waiting import CHECKOUT, wait_for

HASH = hashlib.sha256(b"secret").hexdigest()


@dataclasses.dataclass
class Watched:
    """A file with the key of alice, and what a gateway has read from it."""

    path: Path
    keys: keys.KeyFile

    def name(self) -> str | None:
        """Whose key it is now."""
        self.keys.refresh()
        return self.keys.name_of(b"secret")


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    path = tmp_path / "keys"
    path.write_text(f"alice {HASH}\n")
    return Watched(path, keys.KeyFile(path))


def test_a_file_of_keys_is_read(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# the team\n\nalice {HASH}  # until May\nbob\t{'0' * 64}\n")
    assert keys.read(file) == {"alice": HASH.encode(), "bob": b"0" * 64}
    found = keys.KeyFile(file)
    assert found.name_of(b"secret") == "alice"
    assert found.name_of(b"") is None
    assert found.name_of(HASH.encode()) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no key"),
        ("alice secret", "line 1 is not NAME SHA256"),
        (f"alice {HASH.upper()}", "line 1 is not NAME SHA256"),
        (f"a b {HASH}", "line 1 is not NAME SHA256"),
        (f"alice {HASH}\nalice {HASH}", "line 2 names 'alice' a second time"),
    ],
)
def test_a_wrong_file_is_refused_without_telling_it(
    text: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(keys.KeyFileError, match=message) as caught:
        keys.read(file)
    assert "secret" not in str(caught.value)
    done = subprocess.run(
        [sys.executable, "-m", "server", "--keys-file", str(tmp_path / "none")],
        cwd=CHECKOUT, capture_output=True, text=True, check=False,
    ) if not text else None  # fmt: skip
    if done is not None:
        assert done.returncode == 2
        assert "cannot be read" in done.stderr


def test_a_file_that_was_spoilt_keeps_the_keys_that_stand_in_it(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    file = watched.path
    with caplog.at_level(logging.ERROR):
        file.write_text(f"alice {HASH}\nbob\n")
        assert watched.name() == "alice"
        file.unlink()
        assert watched.name() == "alice"
    assert "1 keys that were read before stay" in caplog.text
    file.write_text(f"bob {HASH}\n")
    assert watched.name() == "bob"
    for without in (b"carol\n", b"# nobody\n", f"# bob {HASH}\ncarol\n".encode(), b"\xff\n"):
        file.write_text(f"bob {HASH}\n")
        assert watched.name() == "bob"
        file.write_bytes(without)
        assert watched.name() is None


def test_a_file_that_is_empty_for_a_moment_lets_everybody_in_meanwhile(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        watched.path.write_text("")
        for _ in range(2):
            assert watched.name() == "alice"
        watched.path.write_text(f"bob {HASH}\n")
        assert watched.name() == "bob"
        watched.path.write_text(f"alice {HASH}\n")
        assert watched.name() == "alice"
    assert caplog.text.count("is empty; if it stays so for 5 s") == 3


def test_a_file_that_stays_empty_counts(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    aside = watched.path.rename(watched.path.with_name("aside"))
    watched.path.write_text("")
    assert watched.name() == "alice"
    monkeypatch.setattr(keys, "EMPTY_SECONDS", 0.0)
    assert watched.name() is None
    # The same file, of which stat(2) tells nothing new.
    aside.replace(watched.path)
    assert watched.name() == "alice"


def test_a_file_is_read_when_it_is_finished(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written in place, and for longer than one look: none of its keys is locked out meanwhile."""
    rest = [f"bob {'1' * 64}\n", f"alice {HASH}\n"]

    def write_on(seconds: float) -> None:
        assert seconds == keys.SETTLED_SECONDS
        if rest:
            with watched.path.open("a") as file:
                file.write(rest.pop(0))

    monkeypatch.setattr(time, "sleep", write_on)
    watched.path.write_text(f"zoe {'0' * 64}\n")
    assert watched.name() == "alice"
    assert not rest


def test_a_file_that_could_not_be_read_for_a_while_is_read_after_it(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def denied(path: Path) -> dict[str, bytes]:  # not by chmod: root reads everything
        raise keys.KeyFileError(f"the file of keys {path} cannot be read: Permission denied")

    watched.path.write_text(f"bob {'0' * 64}\n")
    with monkeypatch.context() as unreadable, caplog.at_level(logging.ERROR):
        unreadable.setattr(keys, "read", denied)
        for _ in range(3):
            assert watched.name() == "alice"
    assert caplog.text.count("keys that were read before stay") == 1
    # Nothing of what stat(2) tells of it has changed: not by chmod either.
    assert watched.name() is None


@pytest.mark.parametrize("kind", ["FIFO", "folder", "device", "folder by a link"])
def test_what_is_no_file_is_refused_at_the_start(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path if "link" in kind else "/dev/zero")
    done = subprocess.run(
        [sys.executable, "-m", "server", "--port", "0", "--keys-file", str(path)],
        cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"{path} is no file, but a {kind.split(maxsplit=1)[0]}" in done.stderr


def test_a_file_that_becomes_a_fifo_changes_nothing(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.path.unlink()
    os.mkfifo(watched.path)
    assert watched.name() == "alice"
    assert "is no file, but a FIFO" in caplog.text


def test_a_slow_disk_does_not_stop_the_event_loop(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = watched.keys
    began, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        began.set()
        assert go_on.wait(60)

    async def run() -> None:
        watching = asyncio.create_task(found.watch())
        async with asyncio.timeout(60):
            while not began.is_set():  # noqa: ASYNC110 - a thread tells it
                await asyncio.sleep(0.001)
        assert found.name_of(b"secret") == "alice"  # the loop goes on meanwhile
        go_on.set()
        watching.cancel()

    monkeypatch.setattr(keys, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(found, "refresh", slow)
    asyncio.run(run())


def classify(guarded: Guarded, headers: dict[str, str]) -> httpx.Response:
    return stack.classify(guarded.gateway, photo(0, 60, 60), headers=headers)


def test_only_a_key_opens(guarded: Guarded) -> None:
    for headers in ({"Authorization": f"Bearer {guarded.key}"}, {"X-API-Key": guarded.key}):
        assert classify(guarded, headers).status_code == 200
    for headers in (
        {},
        {"X-API-Key": ""},
        {"X-API-Key": guarded.key[:-1]},
        {"Authorization": guarded.key},
        {"Authorization": f"Basic {guarded.key}"},
        {"Authorization": "Bearer"},
    ):
        response = classify(guarded, headers)
        assert response.status_code == 401, headers
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json()["type"].endswith(":unauthorized")
        assert response.headers["x-request-id"] == response.json()["request_id"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *((path, 200) for path in ("/", "/livez", "/readyz", "/healthz", "/metrics")),
        *((path, 200) for path in ("/docs", "/openapi.json")),
        *((path, 401) for path in ("/models", "/models/linear", "/classify", "/nothing")),
        *((path, 401) for path in ("//models", "/livez/", "/metrics/../models", "/%6dodels")),
    ],
)
def test_what_is_open_without_a_key(guarded: Guarded, path: str, status: int) -> None:
    # By hand: a client library would tidy the path up.
    host, port = guarded.gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 20) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert int(client.recv(12).split()[1]) == status


def test_keys_change_without_a_restart(guarded: Guarded) -> None:
    before = guarded.keys_file.read_text()
    other = {"X-API-Key": "another-key"}
    statuses: set[int] = set()  # of somebody whose key stays
    assert classify(guarded, other).status_code == 401

    def each_worker(status: int) -> bool:
        return all(classify(guarded, other).status_code == status for _ in range(8))

    def write(keys: str) -> None:
        """In place, with a moment in which each worker has looked at the empty file."""
        with guarded.keys_file.open("w") as file:
            began = time.monotonic()
            while time.monotonic() - began < 1.5:
                statuses.add(classify(guarded, {"X-API-Key": guarded.key}).status_code)
            file.write(keys)

    try:
        write(f"{before}bob {hashlib.sha256(b'another-key').hexdigest()}\n")
        wait_for(lambda: each_worker(200), what="a key that was added")
    finally:
        write(before)
    wait_for(lambda: each_worker(401), what="a key that was taken away")
    assert statuses == {200}


def test_other_origins_only_where_they_are_allowed(guarded: Guarded, gateway: Gateway) -> None:
    asked = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
    for server, allowed in ((guarded.gateway, "https://example.org"), (gateway, None)):
        preflight = httpx.options(f"{server.url}/classify", headers=asked, trust_env=False)
        assert preflight.headers.get("access-control-allow-origin") == allowed
    # An error can be read from there as well, a stranger's origin cannot read anything.
    refused = classify(guarded, {"Origin": "https://example.org"})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://example.org"
    stranger = classify(guarded, {"Origin": "https://example.com", "X-API-Key": guarded.key})
    assert "access-control-allow-origin" not in stranger.headers


def test_the_program_needs_a_name() -> None:
    for arguments in ([], ["a b"], ["alice", "bob"]):
        assert keys.main(arguments) == 2
    assert keys.main(["--help"]) == 0
