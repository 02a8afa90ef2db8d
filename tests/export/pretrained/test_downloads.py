"""Downloads of `--pretrained` that are cut off, damaged or refused, against a stand-in."""

import os
from pathlib import Path

import pytest

from export.pretrained import google
from tests.export import weights_server
from tests.export.pretrained.machine import (
    FETCH,
    FETCH_GOOGLE,
    FETCH_HUB,
    GOOGLE,
    HUB,
    Here,
    Machine,
)
from tests.export.weights_server import Weights
from tests.waiting import wait_for

EACH = pytest.mark.parametrize(
    ("code", "name"),
    [pytest.param(FETCH_HUB, HUB, id="hub"), pytest.param(FETCH_GOOGLE, GOOGLE, id="google")],
)


def test_killed_in_the_middle_the_next_run_has_the_right_file_from_the_hub(
    machine: Machine, weights: Weights, folder: Path
) -> None:
    weights.hold_after = 20_000
    with machine.start("-c", FETCH_HUB.format(HUB)) as process:
        assert weights.held.wait(60)
        process.kill()
        process.communicate()
    weights.hold_after = None
    weights.ended.set()
    blobs = machine.home / "huggingface/hub" / f"models--timm--{HUB}" / "blobs"
    (left,) = blobs.glob("*.incomplete")
    os.utime(left, (0, 0))  # as if it had been killed long ago
    path = machine.fetch(FETCH_HUB, HUB)
    expected = (folder / "model.safetensors").read_bytes()
    assert (path / "model.safetensors").read_bytes() == expected
    assert not list(blobs.glob("*.incomplete"))


def test_a_killed_download_from_google_is_resumed(machine: Machine, weights: Weights) -> None:
    content = weights.google[GOOGLE] = os.urandom(3_000_000)
    weights.hold_after = 2_500_000
    with machine.start("-c", FETCH_GOOGLE.format(GOOGLE)) as process:
        assert weights.held.wait(60)
        part = machine.home / "cache/mixer-serving/pretrained" / f"{GOOGLE}.partial"
        wait_for(lambda: part.exists() and part.stat().st_size > 0, 30, "a written part")
        process.kill()
        process.communicate()
    weights.hold_after = None
    weights.ended.set()
    size = part.stat().st_size
    assert 0 < size < len(content)
    path = machine.fetch(FETCH_GOOGLE, GOOGLE)
    assert path.read_bytes() == content
    assert weights.asked(GOOGLE) == [None, f"bytes={size}-"]
    assert not part.exists()


def test_a_broken_connection_is_resumed_in_the_same_run(machine: Machine, weights: Weights) -> None:
    content = weights.google[GOOGLE] = os.urandom(3_000_000)
    weights.break_after = 2_000_000
    assert machine.fetch(FETCH_GOOGLE, GOOGLE).read_bytes() == content
    first, second = weights.asked(GOOGLE)
    assert first is None
    assert second is not None
    assert second.startswith("bytes=")


def test_an_object_that_has_changed_is_taken_whole(machine: Machine, weights: Weights) -> None:
    """Half of the old and half of the new is neither."""
    weights.google[GOOGLE] = os.urandom(3_000_000)
    weights.hold_after = 2_500_000
    part = machine.home / "cache/mixer-serving/pretrained" / f"{GOOGLE}.partial"
    with machine.start("-c", FETCH_GOOGLE.format(GOOGLE)) as process:
        assert weights.held.wait(60)
        wait_for(lambda: part.exists() and part.stat().st_size > 1000, 30, "a written part")
        process.kill()
        process.communicate()
    weights.hold_after = None
    part.write_bytes(part.read_bytes()[:1000])
    content = weights.google[GOOGLE] = os.urandom(3_000_000)
    assert machine.fetch(FETCH_GOOGLE, GOOGLE).read_bytes() == content
    assert weights.asked(GOOGLE)[-1] == "bytes=1000-"


@EACH
def test_a_wrong_byte_is_refused_and_not_kept(
    machine: Machine, weights: Weights, code: str, name: str
) -> None:
    weights.wrong_byte = True
    said = machine.refused(code, name)
    assert "what came is not what was published; it has been removed" in said
    assert weights.url in said
    weights.wrong_byte = False
    path = machine.fetch(code, name)
    file = path / "model.safetensors" if path.is_dir() else path
    assert file.read_bytes() in [*weights.hub.values(), *weights.google.values()]


@EACH
def test_what_was_kept_is_checked_again(machine: Machine, code: str, name: str) -> None:
    path = machine.fetch(code, name)
    file = (path / "model.safetensors" if path.is_dir() else path).resolve()
    content = bytearray(file.read_bytes())
    content[999] ^= 1
    file.write_bytes(content)
    assert "what came is not what was published" in machine.refused(code, name)
    path = machine.fetch(code, name)
    file = (path / "model.safetensors" if path.is_dir() else path).resolve()
    content[999] ^= 1
    assert file.read_bytes() == content


def test_without_a_network_one_sentence_has_the_address_and_the_flag(
    machine: Machine, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.variables["HF_ENDPOINT"] = "http://127.0.0.1:9"
    said = machine.refused(FETCH, HUB)
    folder = f"http://127.0.0.1:9/timm/{HUB}/resolve/main"
    assert f"{folder}/config.json cannot be downloaded ([Errno" in said
    assert f"{folder}/model.safetensors" in said
    assert said.endswith("--checkpoint FOLDER --name NAME")
    assert "HF_HUB_OFFLINE is set" in machine.refused(FETCH, HUB, HF_HUB_OFFLINE="1")
    # Google's libraries take it without http:// too.
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "127.0.0.1:9")
    monkeypatch.setattr(google, "ATTEMPTS", 2)
    status, _, err = here("--pretrained", f"gs://{GOOGLE}")
    assert status == 1
    said = err.splitlines()[-1]
    assert said.startswith(f"error: http://127.0.0.1:9/{GOOGLE} cannot be downloaded ([Errno")
    flags = "--resize shortest --interpolation bilinear --crop-fraction 0.875"
    assert said.endswith(f"--checkpoint FILE --name NAME {flags}")
    for wrong in ("http://[1", "ftp://127.0.0.1"):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", wrong)
        status, _, err = here("--pretrained", f"gs://{GOOGLE}")
        assert status == 1
        assert f"{wrong}/{GOOGLE} cannot be downloaded" in err.splitlines()[-1]
    monkeypatch.setenv("EXPORT_NETWORK", "none")
    inside = here("--pretrained", f"gs://{GOOGLE}")[2].splitlines()[-1]
    assert "EXPORT_NETWORK=bridge docker compose run" in inside
    assert not machine.repository.exists()


def test_what_the_hub_does_not_have_is_said(machine: Machine, weights: Weights) -> None:
    absent = machine.refused(FETCH_HUB, "absent")
    assert "the hub has no timm/absent, or you may not read it: set HF_TOKEN" in absent
    del weights.hub[f"timm/{HUB}/model.safetensors"]
    said = machine.refused(FETCH_HUB, HUB)
    assert said.endswith("is there, but has no such file; pickled weights are never loaded")


def test_a_file_that_cannot_be_checked_is_not_used(machine: Machine, weights: Weights) -> None:
    weights.hashes = False
    assert "the storage names no hash of it" in machine.refused(FETCH_GOOGLE, GOOGLE)
    assert "status 404" in machine.refused(FETCH_GOOGLE, "bucket/absent.npz")


def test_crc32c_is_that_of_rfc_3720(machine: Machine, weights: Weights) -> None:
    """Its appendix B.4 has the value of 32 bytes of zeros, 0x8A9136AA."""
    assert weights_server.crc32c(bytes(32)) == "ipE2qg=="
    weights.google["bucket/zeros.npz"] = bytes(32)
    assert machine.fetch(FETCH_GOOGLE, "bucket/zeros.npz").read_bytes() == bytes(32)
