"""Paths and names with which a shell would trip, in a real Triton and in the folders alone."""

import logging
import shutil
from pathlib import Path

import pytest
import tritonclient.grpc as triton_grpc

from server.local_triton.launch import LocalTritonError
from server.local_triton.repository import usable_path
from server.local_triton.supervisor import ENVIRONMENT, LocalTriton
from tests import tiny_models
from tests.server.local_triton.harm import infer, refusal
from tests.stack import running_gateway, running_triton, status

ODD_FOLDER = 'Bilder für "Mixer" & it\'s $(exit) 日本;\t*'
ODD_MODELS = ("my model", "it's", "a;b", "a&b", "$(exit)", "a(b)", "a`b`", "new\nline")
GOOD_MODELS = ("größe", "日本", "a.b-c_d", "x=1,y:2@3%+")


def test_serves_a_repository_whatever_its_path_is(tmp_path: Path) -> None:
    repository = tmp_path / ODD_FOLDER
    for name in GOOD_MODELS:
        tiny_models.publish(repository, name)
    before = set(Path(tmp_path).iterdir())
    with running_triton(repository) as triton:
        for name in GOOD_MODELS:
            assert infer(triton.grpc_url, name) is not None, name
        tiny_models.publish(repository, "later")
        assert "later" in index(triton)  # Triton sees the folder itself
    assert set(Path(tmp_path).iterdir()) == before


def index(triton: LocalTriton) -> set[str]:
    with triton_grpc.InferenceServerClient(triton.grpc_url) as client:
        return {model.name for model in client.get_model_repository_index().models}


def test_leaves_out_a_model_with_an_odd_name_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_models.publish(tmp_path / "models", "good")
    for name in ODD_MODELS:
        folder = tiny_models.publish(tmp_path / "models", "plain")
        folder.rename(folder.with_name(name))
    with running_triton(tmp_path / "models") as triton:
        assert infer(triton.grpc_url, "good") is not None
        assert index(triton) == {"good"}
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == len(ODD_MODELS)
    (about,) = [error for error in errors if "'my model'" in error]
    assert "is not served: its folder's name has ' '" in about
    assert "rename the folder" in about


def test_a_gateway_beside_a_model_with_an_odd_name_serves_the_others(tmp_path: Path) -> None:
    tiny_models.publish(tmp_path / "models", "good")
    tiny_models.publish(tmp_path / "models", "my model")
    flags = ("--with-triton", "--repository", str(tmp_path / "models"), "--default-model", "good")
    with running_gateway(tmp_path / "log", *flags) as gateway:
        assert status(f"{gateway.url}/readyz") == 200
        assert "model 'my model' is not served" in gateway.log.read_text()


def test_ends_at_once_if_every_model_has_an_odd_name(tmp_path: Path) -> None:
    tiny_models.publish(tmp_path / "models", "my model")
    message = refusal(LocalTriton(tmp_path / "models"))
    assert "'my model'" in message
    assert "no other model is there" in message


def test_ends_at_once_if_temporary_files_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_repository: Path
) -> None:
    folder = tmp_path / "my tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    assert "set TMPDIR to" in refusal(LocalTriton(model_repository))
    assert not list(folder.iterdir())


def test_an_environment_may_lie_anywhere(tmp_path: Path, model_repository: Path) -> None:
    environment = tmp_path / "my projects, größe" / ".venv-triton"
    environment.parent.mkdir()
    environment.symlink_to(ENVIRONMENT.resolve())
    triton = LocalTriton(model_repository, environment=environment)
    with running_triton(model_repository, triton=triton) as running:
        assert infer(running.grpc_url) is not None


def test_an_ordinary_repository_is_read_as_it_is(tmp_path: Path) -> None:
    repository, folder = tmp_path / "models", tmp_path / "folder"
    folder.mkdir()
    tiny_models.publish(repository, "good")
    assert usable_path(repository, folder) == repository
    assert not list(folder.iterdir())


def test_odd_folders_that_are_no_models_do_no_harm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    repository, folder = tmp_path / "models", tmp_path / "folder"
    folder.mkdir()
    tiny_models.publish(repository, "good")
    (repository / "my notes").mkdir()
    shutil.copy(repository / "good/labels.txt", repository / "my notes")
    assert usable_path(repository, folder) == repository
    assert not caplog.records


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_models.publish(tmp_path / "models", "good")
    monkeypatch.chdir(tmp_path)
    assert usable_path(Path("models"), tmp_path) == tmp_path / "models"


def test_the_reason_names_every_odd_character(tmp_path: Path) -> None:
    tiny_models.publish(tmp_path / "models", "a b;c")
    with pytest.raises(LocalTritonError, match="name has ' ;'"):
        usable_path(tmp_path / "models", tmp_path)
