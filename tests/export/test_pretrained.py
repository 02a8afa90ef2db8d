"""`--pretrained`, against a stand-in for the hub and Google's storage: tests have no network."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from contracts.imagenet import names
from contracts.variants import VARIANTS
from export import __main__
from export.checkpoint import load_classifier
from export.graph import open_graph
from export.options import Options
from export.parity import torch_logits
from export.pretrained import google
from export.pretrained.catalogue import catalogue
from tests.export import libraries, weights_server
from tests.export.weights_server import COMMIT, Weights, serving
from tests.exported import GOLDEN
from tests.waiting import CHECKOUT, wait_for

HUB = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
GOOGLE = "mixer_models/sam/Mixer-B_32.npz"
CHECKPOINT = GOLDEN / "mixer_tiny" / "checkpoint.npz"
# No torch: these begin in half a second.
FETCH_HUB = "from export.pretrained.hub import fetch_repository as f; print(f('timm/{}'))"
FETCH_GOOGLE = (
    "from export.pretrained.google import fetch_object as f; print(f(*'{}'.split('/', 1)))"
)
FETCH = "from export.pretrained.fetching import fetch as f; print(f('{}').path)"
EACH = pytest.mark.parametrize(
    ("code", "name"),
    [pytest.param(FETCH_HUB, HUB, id="hub"), pytest.param(FETCH_GOOGLE, GOOGLE, id="google")],
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ViT as timm would upload it."""
    made = libraries.timm().create_model(
        "vit_tiny_patch16_224", depth=1, embed_dim=48, img_size=64, num_classes=1000
    )
    path = tmp_path_factory.mktemp("timm")
    made.pretrained_cfg["tag"] = "augreg_in21k_ft_in1k"
    return libraries.save_timm(libraries.randomized(made), path)


@pytest.fixture
def weights(folder: Path) -> Iterator[Weights]:
    with serving() as server:
        for file in ("config.json", "model.safetensors"):
            server.hub[f"timm/{HUB}/{file}"] = (folder / file).read_bytes()
        server.google[GOOGLE] = CHECKPOINT.read_bytes()
        yield server


class Machine:
    """A user's machine: its own caches, and the server as hub and storage."""

    def __init__(self, weights: Weights, home: Path) -> None:
        self.home, self.repository = home, home / "repository"
        self.variables = {
            "HF_ENDPOINT": weights.url,
            "STORAGE_EMULATOR_HOST": weights.url,
            "HF_HOME": str(home / "huggingface"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_ETAG_TIMEOUT": "30",
            "no_proxy": "127.0.0.1",
        }

    def start(self, *command: str, **variables: str) -> subprocess.Popen[str]:
        environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=CHECKOUT,
            env=environment | self.variables | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str, **variables: str) -> tuple[int, str, str]:
        """Exit status, stdout, stderr."""
        with self.start(*command, **variables) as process:
            out, err = process.communicate(timeout=100)
        return process.returncode, out, err

    def fetch(self, code: str, name: str, **variables: str) -> Path:
        """The path of the fetched file or folder."""
        status, out, err = self.run("-c", code.format(name), **variables)
        assert status == 0, err
        return Path(out.strip())

    def refused(self, code: str, name: str, **variables: str) -> str:
        """What is said where a fetch fails."""
        status, _, err = self.run("-c", code.format(name), **variables)
        assert status == 1
        return err.strip().splitlines()[-1]

    def config(self, name: str) -> str:
        return (self.repository / name / "config.pbtxt").read_text()


@pytest.fixture
def machine(weights: Weights, tmp_path: Path) -> Machine:
    return Machine(weights, tmp_path)


class Here:
    """The command line in this process, which has PyTorch already; Google's storage alone."""

    def __init__(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in ("STORAGE_EMULATOR_HOST", "XDG_CACHE_HOME", "no_proxy"):
            monkeypatch.setenv(name, machine.variables[name])
        self._repository, self._monkeypatch, self._capsys = machine.repository, monkeypatch, capsys

    def __call__(self, *flags: str) -> tuple[int, str, str]:
        """Exit status, stdout, stderr."""
        arguments = ["export", *flags, "--repository", str(self._repository)]
        self._monkeypatch.setattr(sys, "argv", arguments)
        status = __main__.main()
        captured = self._capsys.readouterr()
        return status, captured.out, captured.err


@pytest.fixture
def here(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Here:
    return Here(machine, monkeypatch, capsys)


def test_a_name_of_the_hub_is_published_and_kept(
    machine: Machine, weights: Weights, folder: Path
) -> None:
    """By the mirror that HF_ENDPOINT names; then without it, from what was kept."""
    command = ("-m", "export", "--pretrained", HUB, "--repository", str(machine.repository))
    status, out, err = machine.run(*command)
    assert status == 0, err
    assert f"published {machine.repository / HUB}: vit, 64×64 pixels, 1000 classes" in out
    assert (machine.repository / HUB / "labels.txt").read_text().splitlines() == names()
    assert f"timm/{HUB}@{COMMIT}" in machine.config(HUB)
    assert weights.asked("model.safetensors") == [None]
    assert not [path for _, path, _ in weights.requests if path.endswith(".bin")]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    graph = open_graph(machine.repository / HUB / "1/model.onnx")
    expected = torch_logits(load_classifier(folder), pixels)
    np.testing.assert_allclose(
        graph.run(["logits"], {"image": pixels})[0], expected, rtol=0, atol=2e-5
    )
    count = len(weights.requests)
    path = machine.fetch(FETCH, HUB, HF_HUB_OFFLINE="1")
    assert len(weights.requests) == count
    kept = (path / "model.safetensors").read_bytes()
    assert kept == (folder / "model.safetensors").read_bytes()


def test_a_file_of_googles_is_published_by_its_own_rule(
    machine: Machine, here: Here, weights: Weights
) -> None:
    status, out, err = here("--pretrained", f"gs://{GOOGLE}", "--image-size", "32")
    assert status == 0, err
    assert "published" in out
    config = machine.config("Mixer-B_32")
    assert f"gs://{GOOGLE}" in config
    for key, value in {"resize": "shortest", "crop_fraction": "0.875", "antialias": "true"}.items():
        assert f'key: "{key}" value {{ string_value: "{value}" }}' in " ".join(config.split())
    assert weights.asked(GOOGLE) == [None]


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
    assert said.endswith("--checkpoint FOLDER")
    assert "HF_HUB_OFFLINE is set" in machine.refused(FETCH, HUB, HF_HUB_OFFLINE="1")
    # Google's libraries take it without http:// too.
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "127.0.0.1:9")
    monkeypatch.setattr(google, "ATTEMPTS", 2)
    status, _, err = here("--pretrained", f"gs://{GOOGLE}")
    assert status == 1
    said = err.splitlines()[-1]
    assert said.startswith(f"error: http://127.0.0.1:9/{GOOGLE} cannot be downloaded ([Errno")
    flags = "--resize shortest --interpolation bilinear --crop-fraction 0.875"
    assert said.endswith(f"--checkpoint FILE {flags}")
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


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vit_tiny_patch16", "is vit_tiny_patch16_"),
        ("gs://bucket", "expected gs://BUCKET/OBJECT.npz"),
        ("gs://bucket/../../x.npz", "expected gs://BUCKET/OBJECT.npz"),
        ("a/b/c", "expected ORGANISATION/NAME"),
    ],
)
def test_a_wrong_name_is_refused(here: Here, name: str, said: str) -> None:
    status, _, err = here("--pretrained", name, "--name", "x")
    assert status == 2
    assert said in err.splitlines()[-1]


def test_the_list_has_what_is_known_of_each(here: Here) -> None:
    status, out, _ = here("--list-pretrained")
    assert status == 0
    name = "mixer_b16_224.miil_in21k_ft_in1k"
    (line,) = (line for line in out.splitlines() if line.endswith(name))
    assert line.split()[:5] == ["1000", "224", "240", "Apache-2.0", "82.31"]
    assert "short side 256, centre 224, bilinear" in line
    assert len(out.splitlines()) == 1 + len(catalogue())


def test_the_catalogue_agrees_with_timm() -> None:
    """timm's own table is the oracle for what is on the hub; Google's files are in no package."""
    timm = libraries.timm()
    checked = 0
    for name, row in catalogue().items():
        assert row.variant in VARIANTS
        if row.at == "google":
            assert name.endswith(".npz")
            continue
        cfg = timm.models.get_pretrained_cfg(name, allow_unregistered=False)
        assert cfg.hf_hub_id == f"timm/{name}"
        assert cfg.license == "apache-2.0"
        assert (cfg.num_classes, cfg.input_size) == (row.classes, (3, *[row.image_size] * 2)), name
        rule = row.preprocessing
        assert (cfg.crop_pct, cfg.interpolation) == (rule.crop_fraction, rule.interpolation), name
        checked += 1
    assert checked > 40


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (HUB, HUB),
        ("google/vit-base-patch16-224@main", "vit-base-patch16-224"),
        ("gs://bit_models/distill/R50x1_224.npz", "R50x1_224"),
    ],
)
def test_a_model_is_called_by_the_last_part_of_its_name(name: str, expected: str) -> None:
    assert Options(pretrained=name).model_name == expected
    assert dataclasses.replace(Options(pretrained=name), name="mine").model_name == "mine"
