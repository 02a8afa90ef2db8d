"""Engines of the launcher in NVIDIA's image: what is kept, and what is told when it is not."""

import argparse
import asyncio
import shutil
from pathlib import Path

import pytest

from deploy.triton import nvidia
from deploy.triton.engines import EngineError, Model, build, trtexec_flags
from tests.stack import DEFAULT_MODEL
from tests.waiting import CHECKOUT

TRTEXEC = """#!/bin/sh
for flag; do
  case $flag in --saveEngine=*) echo plan > "${flag#*=}" ;; esac
done
"""


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """A copy of the shipped default model."""
    folder = tmp_path / "models" / DEFAULT_MODEL
    shutil.copytree(CHECKOUT / "model_repository" / DEFAULT_MODEL, folder)
    return Model(folder, folder / "1")


def test_an_engine_that_cannot_be_kept_is_not_built(model: Model, tmp_path: Path) -> None:
    trtexec, folder = tmp_path / "trtexec", tmp_path / "engines/key"
    trtexec.write_text(TRTEXEC)
    trtexec.chmod(0o755)
    folder.mkdir(parents=True)
    (folder / "model.plan.partial").touch()
    with pytest.raises(OSError, match="not empty"):
        asyncio.run(build(trtexec, model, folder, "1 of 1"))
    (folder / "model.plan").write_text("another container's")
    asyncio.run(build(trtexec, model, folder, "1 of 1"))
    assert (folder / "model.plan").read_text() == "another container's"
    shutil.rmtree(folder)
    asyncio.run(build(trtexec, model, folder, "1 of 1"))
    assert (folder / "model.plan").read_text() == "plan\n"
    assert [path.name for path in folder.parent.iterdir()] == ["key"]


@pytest.mark.parametrize(
    "text", ["max_batch_size: 8 input: 5", "max_batch_size: 8 input { name: 'x' }", "}", ""]
)
def test_a_configuration_without_one_input_has_no_engine(model: Model, text: str) -> None:
    model.tensorrt_config.write_text(text)
    with pytest.raises(EngineError, match="does not declare a max_batch_size and one input"):
        trtexec_flags(model, model.folder / "model.plan")


def test_a_fault_that_ends_the_care_for_engines_is_logged(
    model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise KeyError("a fault")

    async def serve(*_: object) -> None:
        await asyncio.sleep(0.01)
        assert "engines are built and checked no more: KeyError('a fault')" in caplog.text

    monkeypatch.setattr(nvidia, "look_after_engines", fail)
    monkeypatch.setattr(nvidia, "serve", serve)
    options = argparse.Namespace(
        repository=model.folder.parent, engines=None, build_only=False, trtexec=None,
        grpc_port=0, metrics_port=0, http_port=0, address="127.0.0.1", ready_when="models",
    )  # fmt: skip
    assert asyncio.run(nvidia.run(options)) == 0
