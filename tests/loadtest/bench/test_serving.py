"""The serving benchmark, with ONNX Runtime in the gateway's process and two other servers."""

import json
from pathlib import Path

import pytest

from loadtest.servers import stack
from loadtest.servers.launch import StackError, gateway
from tests import tiny_models
from tests.loadtest.runs import loadtest


def test_it_serves_exported_models_with_random_weights(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = loadtest(
        *("bench", "serving", "--folder", tmp_path, "--cases", "tiny", "photo"),
        *("--contestants", "in_process", "yardstick", "mosec", "--seconds", "0.3", "--rounds", "1"),
        *("--concurrency", "1", "--out", out),
    )
    assert done.returncode == 0, done.stderr
    found = {row["contestant"]: row for row in json.loads(out.read_text())}
    assert set(found) == {"in_process", "yardstick", "mosec"}
    assert all(row["images_per_second"] > 1 and not row["failed"] for row in found.values())
    # Nothing is made that no case needs; `photo` is for the model that does almost no work.
    assert {each.name for each in (tmp_path / "models").iterdir()} == {"tiny", "empty"}


def test_a_model_that_cannot_be_served_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway's answer says no more than that its log says why; the error quotes the log."""
    monkeypatch.setattr(stack, "SETTLE_SECONDS", 0.5)
    folder = tiny_models.publish(tmp_path, "tiny")
    (folder / tiny_models.MODEL_FILE).write_bytes(b"not a graph")
    flags = ("--engine", "onnxruntime", "--repository", str(tmp_path), "--log-format", "text")
    server = gateway("--default-model", "tiny", *flags)
    with (
        pytest.raises(StackError, match=r"model tiny is unavailable: .*Protobuf parsing failed"),
        stack.serving(server, ["tiny"]),
    ):
        pass
    assert server.stop() == 0
