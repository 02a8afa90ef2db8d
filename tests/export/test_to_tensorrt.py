"""TensorRT: every kind of graph becomes an engine, by the real compiler, without a GPU."""

import importlib.util
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, save

from export import engines
from export.config import ModelSpec, onnxruntime_config
from export.graph import build_graph, save_graph
from export.options import Precision
from export.parity import probe_images
from export.precision import Images, reduce_precision
from export.quantization import put_weights_right
from export.to_tensorrt import (
    Edition,
    Source,
    TensorRTError,
    build_engine,
    container_command,
    find_edition,
    read_source,
)
from tests import exported

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None,
    reason="TensorRT for RTX has wheels for Linux on x86-64 only",
)


@pytest.fixture(scope="module")
def edition() -> Edition:
    found = find_edition()
    assert found is not None
    return found


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("variant", ["mixer_s16", "vit_s16", "bit_r50x1"])
@pytest.mark.timeout(600)  # a quarter of a minute, but for a busy machine
def test_engines_of_every_family_and_precision(
    variant: str, edition: Edition, tmp_path: Path
) -> None:
    classifier = exported.classifier(variant)
    put_weights_right(classifier.module)
    images = probe_images(classifier.image_size, 2)
    samples = Images(images, images)
    traced = tmp_path / "fp32.onnx"
    save_graph(build_graph(classifier), traced)
    sizes: dict[Precision, int] = {}
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8")
    for precision in precisions:
        model = ir.load(traced)
        reduce_precision(model, precision, samples, tmp_path)
        path = tmp_path / f"{precision}.onnx"
        save_graph(model, path)
        sizes[precision] = len(build_engine(edition, Source(variant, path, 224, 32)))
    # The head stays in FP32; beside a BiT's few parameters it weighs most.
    assert sizes["fp16"] <= (0.6 if variant == "bit_r50x1" else 0.55) * sizes["fp32"]
    assert sizes["int8"] <= 0.45 * sizes["fp32"]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the model `tiny`."""
    repository = tmp_path_factory.mktemp("repository of models")
    folder = repository / "tiny"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.onnx").write_bytes(exported.graph("mixer_tiny").read_bytes())
    config = onnxruntime_config(ModelSpec("tiny", 32, 10, 24, {}))
    (folder / "config.pbtxt").write_text(config)
    return repository


def test_a_published_model_is_read(published: Path) -> None:
    source = read_source(published, "tiny")
    assert (source.image_size, source.max_batch_size) == (32, 24)
    assert source.shape(5) == (5, 32, 32, 3)


def test_what_is_not_published_is_named(published: Path, tmp_path: Path) -> None:
    with pytest.raises(TensorRTError, match=r"other/config\.pbtxt is missing: publish 'other'"):
        read_source(published, "other")
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "model.onnx").write_bytes(b"")
    (tmp_path / "m" / "config.pbtxt").write_text("max_batch_size: 0")
    with pytest.raises(TensorRTError, match="max_batch_size of at least 1"):
        read_source(tmp_path, "m")
    (tmp_path / "m" / "config.pbtxt").write_text("max_batch_size: 8")
    with pytest.raises(TensorRTError, match=r"the input 'image' with dims \[ H, W, 3 \]"):
        read_source(tmp_path, "m")


def test_the_engine_is_kept_until_something_changes(
    published: Path, edition: Edition, cache: Path
) -> None:
    source = read_source(published, "tiny")
    engine, cached = engines.cached_engine(edition, source)
    assert not cached
    assert engines.cached_engine(edition, source) == (engine, True)
    (file,) = cache.rglob("*.plan")
    assert edition.module.__version__ in file.name
    other = Source("tiny", exported.graph("mixer_testing"), 32, 24)
    assert not engines.cached_engine(edition, other)[1]
    newer = Edition(SimpleNamespace(__version__="99"), edition.name)  # type: ignore[arg-type] # a fake
    assert engines.cache_key(newer, source) != engines.cache_key(edition, source)


def test_the_command_line_tells_what_to_do_next(
    published: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del cache
    engines.publish_engine(published, "tiny")
    captured = capsys.readouterr()
    assert re.search(r"TensorRT for RTX [\d.]+ takes .*model\.onnx: [\d.]+ MB, built", captured.out)
    assert "Triton does not read engines of TensorRT for RTX" in captured.err
    assert not (published / "tiny" / "1" / "model.plan").exists()


def test_without_tensorrt_the_exact_command_is_printed(
    published: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engines, "find_edition", lambda: None)
    engines.publish_engine(published, "tiny")
    words = shlex.split(capsys.readouterr().out)
    assert words[:5] == ["docker", "run", "--rm", "--gpus", "all"]
    assert words[5:7] == ["-v", f"{published}:/models"]
    assert re.fullmatch(r"nvcr\.io/nvidia/tritonserver:\d\d\.\d\d-py3", words[7])
    build, rename = words[-1].split(" && ")
    assert shlex.split(build) == [
        "/usr/src/tensorrt/bin/trtexec",
        "--onnx=/models/tiny/1/model.onnx",
        "--stronglyTyped",
        "--saveEngine=/models/tiny/1/model.plan.partial",
        "--minShapes=image:1x32x32x3",
        "--optShapes=image:24x32x32x3",
        "--maxShapes=image:24x32x32x3",
        "--skipInference",
    ]
    assert rename == "mv /models/tiny/1/model.plan.partial /models/tiny/1/model.plan"
    assert container_command(published, read_source(published, "tiny")).count("\n") == 0


def test_a_graph_that_tensorrt_refuses_fails_with_its_words(
    edition: Edition, tmp_path: Path
) -> None:
    """A UINT8 input that meets a Transpose before its Cast."""
    path = tmp_path / "model.onnx"
    nodes = [
        helper.make_node("Transpose", ["image"], ["moved"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["moved"], ["logits"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "refused",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 8, 8, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3, 8, 8])],
    )
    opsets = [helper.make_opsetid("", 20)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    with pytest.raises(
        TensorRTError, match=r"refuses .*model\.onnx: .*(UINT8|UInt8|uint8)"
    ) as error:
        build_engine(edition, Source("refused", path, 8, 4))
    assert "CUDA driver version" not in str(error.value)
    path.write_bytes(b"no graph")
    with pytest.raises(TensorRTError, match="refuses"):
        build_engine(edition, Source("refused", path, 8, 4))


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "model.plan"
    engines.write_whole(path, b"old")
    with pytest.raises(TypeError):
        engines.write_whole(path, "no bytes")  # type: ignore[arg-type] # on purpose
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644
