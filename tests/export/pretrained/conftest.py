"""Fixtures of the tests of `--pretrained`: published weights, and a machine that fetches them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.export import libraries
from tests.export.pretrained.machine import CHECKPOINT, GOOGLE, HUB, Here, Machine
from tests.export.weights_server import Weights, serving


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


@pytest.fixture
def machine(weights: Weights, tmp_path: Path) -> Machine:
    return Machine(weights, tmp_path)


@pytest.fixture
def here(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Here:
    return Here(machine, monkeypatch, capsys)
