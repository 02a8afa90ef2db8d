"""Publishing: whole or not at all, whatever lies there and whenever it is killed; and configs."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from export.config import (
    ModelSpec,
    graph_batch_sizes,
    onnxruntime_config,
    tensorrt_config,
)
from export.publish import PublishError, publishing

CHECKOUT = Path(__file__).resolve().parents[2]
PARAMETERS = {"family": "mixer", "checkpoint": 'a "quoted" \\ näme.npz'}
SPEC = ModelSpec("tiny", 32, 10, 24, PARAMETERS)


def publish_text(repository: Path, text: str, name: str = "model") -> None:
    with publishing(repository, name) as folder:
        (folder / "config.pbtxt").write_text(text)
        (folder / "1").mkdir()
        (folder / "1" / "model.onnx").write_text(text)


def contents(repository: Path) -> tuple[str, str]:
    folder = repository / "model"
    return (folder / "config.pbtxt").read_text(), (folder / "1" / "model.onnx").read_text()


def test_a_model_appears_and_is_replaced(tmp_path: Path) -> None:
    repository = tmp_path / "new" / "repository"
    publish_text(repository, "first")
    assert contents(repository) == ("first", "first")
    publish_text(repository, "second")
    assert contents(repository) == ("second", "second")
    assert [path.name for path in repository.parent.iterdir()] == ["repository"]
    assert [path.name for path in repository.iterdir()] == ["model"]
    assert (repository / "model").stat().st_mode & 0o777 == 0o755


def test_an_error_leaves_the_old_model(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    publish_text(repository, "old")
    with pytest.raises(RuntimeError), publishing(repository, "model") as folder:  # noqa: PT012 - the context is tested
        (folder / "config.pbtxt").write_text("new")
        assert contents(repository) == ("old", "old")
        raise RuntimeError
    assert contents(repository) == ("old", "old")
    assert [path.name for path in tmp_path.iterdir()] == ["repository"]


def test_triton_never_sees_the_work_in_progress(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    with publishing(repository, "model") as folder:
        assert list(repository.iterdir()) == []
        assert folder.parent == tmp_path
        (folder / "config.pbtxt").write_text("")


def test_without_an_exchange_of_folders_two_renames_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "repository"
    publish_text(repository, "old")
    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: object())
    publish_text(repository, "new")
    assert contents(repository) == ("new", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["repository"]


def test_killed_at_any_moment_one_whole_model_lies_there(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from itertools import count\n"
        "from tests.export.test_publish import publish_text\n"
        "for n in count(): publish_text(Path(sys.argv[1]), str(n) * 100_000); print(n, flush=True)"
    )
    repository = tmp_path / "repository"
    for round_ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", code, repository],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            for _ in range(2):
                assert process.stdout.readline()
            time.sleep(0.003 * round_)  # other moments of the loop
            process.send_signal(signal.SIGKILL)
        config, model = contents(repository)
        assert config == model
        assert len(config) >= 100_000
    publish_text(repository, "after")
    assert [path.name for path in tmp_path.iterdir()] == ["repository"], "leftovers are removed"


def test_another_export_at_work_is_left_alone(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    with publishing(repository, "model") as first:
        publish_text(repository, "second")
        assert first.is_dir()
        (first / "config.pbtxt").write_text("first")
    assert (repository / "model" / "config.pbtxt").read_text() == "first"


def test_leftovers_of_the_dead_are_removed(tmp_path: Path) -> None:
    dead, alive = (tmp_path / f".repository.model.{name}.partial" for name in ("a", "b"))
    for folder in (dead, alive):
        folder.mkdir()
    lock = os.open(alive, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    publish_text(tmp_path / "repository", "x")
    os.close(lock)
    assert not dead.exists()
    assert alive.exists()


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../up", "a b", "ä", "x" * 101, "a\n"])
def test_names_that_cannot_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(PublishError, match="expected a letter or digit"):
        publish_text(tmp_path / "repository", "x", name)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_model_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("precious")
    with pytest.raises(PublishError, match=r"no config\.pbtxt"):
        publish_text(tmp_path, "x")
    (tmp_path / "link").symlink_to(tmp_path / "model")
    with pytest.raises(PublishError, match="link"):
        publish_text(tmp_path, "x", "link")
    (tmp_path / "file").write_text("")
    with pytest.raises(PublishError, match="expected a folder, found a file"):
        publish_text(tmp_path / "file", "x")
    assert (tmp_path / "model" / "thesis.txt").read_text() == "precious"


def test_both_configs_are_what_triton_parses() -> None:
    onnx = text_format.Parse(onnxruntime_config(SPEC), model_config_pb2.ModelConfig())
    plan = text_format.Parse(tensorrt_config(SPEC), model_config_pb2.ModelConfig())
    for config in (onnx, plan):
        assert (config.name, config.max_batch_size) == ("tiny", 24)
        assert [(i.name, i.data_type, list(i.dims)) for i in config.input] == [
            ("image", model_config_pb2.TYPE_UINT8, [32, 32, 3])
        ]
        assert [(o.name, o.data_type, list(o.dims), o.label_filename) for o in config.output] == [
            (name, model_config_pb2.TYPE_FP32, [10], "labels.txt")
            for name in ("logits", "probabilities")
        ]
        assert config.HasField("dynamic_batching")
        assert [group.count for group in config.instance_group] == [1]
        for name, value in PARAMETERS.items():
            assert config.parameters[name].string_value == value
    assert (onnx.backend, onnx.default_model_filename) == ("onnxruntime", "model.onnx")
    assert (plan.backend, plan.platform) == ("tensorrt", "tensorrt_plan")
    assert plan.default_model_filename == "model.plan"
    assert [sample.batch_size for sample in onnx.model_warmup] == [1]
    assert [sample.batch_size for sample in plan.model_warmup] == [1, 24]


@pytest.mark.parametrize("largest", [1, 2, 3, 24, 32, 100])
def test_a_cuda_graph_covers_every_batch_size(largest: int) -> None:
    spec = ModelSpec("tiny", 32, 10, largest, {})
    config = text_format.Parse(tensorrt_config(spec), model_config_pb2.ModelConfig())
    covered = [
        size
        for graph in config.optimization.cuda.graph_spec
        for size in range(graph.graph_lower_bound.batch_size, graph.batch_size + 1)
    ]
    assert covered == list(range(1, largest + 1))
    assert graph_batch_sizes(largest)[-1] == largest


@pytest.mark.parametrize(("flops", "threads"), [("180544", "1"), ("84675072", "0")])
def test_a_very_small_model_has_one_thread(flops: str, threads: str) -> None:
    spec = ModelSpec("tiny", 32, 10, 24, {"flops_per_image": flops})
    config = text_format.Parse(onnxruntime_config(spec), model_config_pb2.ModelConfig())
    assert config.parameters["intra_op_thread_count"].string_value == threads
