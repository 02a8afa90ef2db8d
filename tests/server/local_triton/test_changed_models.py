"""A graph that was changed after its export is not served, unless that is allowed."""

from pathlib import Path

import onnx
import pytest

from contracts.repository import CHECKPOINT_DIGEST, GRAPH_DIGEST, graph_digest
from tests import tiny_models
from tests.photos import photo
from tests.stack import client_of, running_gateway
from tests.waiting import wait_for

RAW = {"Content-Type": "image/jpeg"}


CHANGED = ("changed", "renamed", "other_weights")


def repository_with_changes(folder: Path) -> Path:
    """`whole` and `weights` as they were exported; the others are not, each in another way."""
    for name in ("whole", "weights", *CHANGED):
        model = tiny_models.publish(folder, name, external_data=name == "weights")
        path = model / tiny_models.MODEL_FILE
        graph = onnx.load(path, load_external_data=False)
        onnx.helper.set_model_props(graph, {CHECKPOINT_DIGEST: 64 * "a"})
        onnx.save(graph, path)
        more = {
            GRAPH_DIGEST: graph_digest(path),
            CHECKPOINT_DIGEST: 64 * ("b" if name == "other_weights" else "a"),
        }
        with (model / "config.pbtxt").open("a") as file:
            for key, value in more.items():
                file.write(f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n')
            if name == "renamed":
                file.write('default_model_filename: "other.onnx"\n')
        if name in ("changed", "renamed"):
            graph.doc_string = "other"
            onnx.save(graph, path)
        if name == "renamed":
            path.rename(path.with_name("other.onnx"))
    return folder


@pytest.mark.parametrize("allowed", [False, True])
def test_a_changed_graph_is_not_served_unless_allowed(allowed: bool, tmp_path: Path) -> None:
    repository = repository_with_changes(tmp_path / "models")
    flags = ("--with-triton", "--repository", str(repository), "--default-model", "whole")
    environment = {"MIXER_ALLOW_CHANGED_MODELS": "1"} if allowed else {}
    with (
        running_gateway(
            tmp_path / "log", *flags, ready=allowed, environment=environment
        ) as gateway,
        client_of(gateway) as client,
    ):

        def told() -> dict[str, dict[str, object]]:
            models = client.get("/models").json().get("models", [])
            return {each["name"]: each for each in models}

        wait_for(
            lambda: (
                {told().get(name, {}).get("state") for name in ("whole", "weights")} == {"ready"}
            ),
            60,
        )
        models = told()
        image = photo(0, 64, 48)
        assert "changed" not in models["whole"]
        for name in CHANGED:
            answer = client.post(f"/classify?model={name}", content=image, headers=RAW)
            if allowed:
                assert models[name]["state"] == "ready"
                # The graph of other_weights is the one that was exported.
                assert models[name].get("changed", False) is (name != "other_weights")
                assert answer.status_code == 200
                continue
            assert models[name]["state"] == "unavailable"
            reason = str(models[name]["reason"])
            assert "changed after its export" in reason
            assert "MIXER_ALLOW_CHANGED_MODELS=1" in reason
            assert answer.status_code == 503
            assert "changed after its export" in answer.json()["detail"]
