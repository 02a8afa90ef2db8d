"""A graph that was changed after its export is not served, unless that is allowed."""

from pathlib import Path

import httpx
import onnx
import pytest

from contracts.repository import GRAPH_DIGEST, graph_digest
from tests import tiny_models
from tests.photos import photo
from tests.stack import running_stack

RAW = {"Content-Type": "image/jpeg"}


def repository_with_changes(folder: Path) -> Path:
    """`whole` as it was exported; `changed` and `weights` are not."""
    for name in ("whole", "changed", "weights"):
        model = tiny_models.publish(folder, name, external_data=name == "weights")
        digest = graph_digest(model / tiny_models.MODEL_FILE)
        with (model / "config.pbtxt").open("a") as file:
            file.write(
                f'parameters {{ key: "{GRAPH_DIGEST}" value {{ string_value: "{digest}" }} }}\n'
            )
    path = folder / "changed" / tiny_models.MODEL_FILE
    model_ = onnx.load(path)
    model_.doc_string = "other"
    onnx.save(model_, path)
    return folder


@pytest.mark.parametrize("allowed", [False, True])
def test_a_changed_graph_is_not_served_unless_allowed(
    allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = repository_with_changes(tmp_path / "models")
    if allowed:
        monkeypatch.setenv("MIXER_ALLOW_CHANGED_MODELS", "1")
    with (
        running_stack(repository, tmp_path / "log", "whole") as (_, gateway),
        httpx.Client(base_url=gateway.url, trust_env=False, timeout=30) as client,
    ):
        models = {each["name"]: each for each in client.get("/models").json()["models"]}
        image = photo(0, 64, 48)
        answer = client.post("/classify?model=changed", content=image, headers=RAW)
        assert models["whole"]["state"] == models["weights"]["state"] == "ready"
        if allowed:
            assert models["changed"]["state"] == "ready"
            assert answer.status_code == 200
            return
        assert models["changed"]["state"] == "unavailable"
        assert "changed after its export" in models["changed"]["reason"]
        assert "MIXER_ALLOW_CHANGED_MODELS=1" in models["changed"]["reason"]
        assert answer.status_code == 503
        assert "changed after its export" in answer.json()["detail"]
