"""FP16 and INT8: what changes in the graph, what must not, and the gate that judges them."""

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto
from PIL import Image

from contracts.gate import GATES, Judgement
from export.calibration import LEVELS, Magnitudes
from export.graph import build_graph, open_graph, save_graph
from export.half import HalfRangeError, to_half
from export.image_files import find_images, read_image
from export.options import Precision, UsageError
from export.parity import probe_images, torch_logits
from export.precision import (
    MOST_IMAGES,
    Images,
    gather_images,
    judge,
    reduce_precision,
)
from export.preprocessing import Preprocessing
from export.quantization import put_weights_right
from export.random_weights import random_classifier
from tests import exported
from tests.photos import photo

FAMILIES = ("mixer_tiny", "vit_tiny_token", "bit_tiny")


@pytest.fixture(
    scope="module", params=[(c, p) for c in FAMILIES for p in ("fp16", "int8")], ids=str
)
def reduced(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Precision, Path]:
    """A golden case, a precision, and its `model.onnx`."""
    case, precision = request.param
    classifier = exported.classifier(case)
    folder = tmp_path_factory.mktemp(f"{case}_{precision}")
    model = ir.load(exported.graph(case))
    images = probe_images(classifier.image_size, 40)
    reduce_precision(model, precision, Images(images[:20], images[20:]), folder)
    save_graph(model, folder / "model.onnx")
    return case, precision, folder / "model.onnx"


def test_inputs_and_outputs_are_those_of_fp32(reduced: tuple[str, Precision, Path]) -> None:
    case, _, path = reduced
    model, original = onnx.load(path), onnx.load(exported.graph(case))
    assert model.graph.input == original.graph.input
    assert model.graph.output == original.graph.output
    assert model.graph.node[0].op_type == "Cast"
    read = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= read


def test_the_answers_stay(reduced: tuple[str, Precision, Path]) -> None:
    case, precision, path = reduced
    images, expected = exported.golden_logits(case)
    logits, probabilities, _ = open_graph(path).run(None, {"image": images})
    error = np.abs(logits - expected).max() / np.abs(expected).max()
    assert 1e-7 < error < {"fp16": 0.015, "int8": 0.25}[precision]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_an_answer_does_not_depend_on_its_batch(reduced: tuple[str, Precision, Path]) -> None:
    case, _, path = reduced
    images = probe_images(exported.classifier(case).image_size, 4)
    images[3] = 255  # much brighter than the others: a scale taken over the batch would move
    session = open_graph(path)
    together = session.run(["logits"], {"image": images})[0]
    alone = [session.run(["logits"], {"image": image[None]})[0][0] for image in images]
    np.testing.assert_allclose(together, alone, atol=1e-5 * np.abs(together).max() + 1e-6)


def test_half_keeps_statistics_wide_and_weights_narrow(
    reduced: tuple[str, Precision, Path],
) -> None:
    _, precision, path = reduced
    if precision != "fp16":
        return
    model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    types |= {value.name: value.type.tensor_type.elem_type for value in model.graph.output}
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Conv")]
    assert {types[node.output[0]] for node in products[:-1]} == {TensorProto.FLOAT16}
    assert types[products[-1].output[0]] == TensorProto.FLOAT, "the head gives the answer"
    for node in model.graph.node:
        if node.op_type.endswith(("Normalization", "Softmax", "ReduceMean")):
            assert types[node.output[0]] == TensorProto.FLOAT, node.name
    assert path.stat().st_size < 0.8 * exported.graph(reduced[0]).stat().st_size


def test_int8_is_symmetric_static_and_per_channel(reduced: tuple[str, Precision, Path]) -> None:
    _, precision, path = reduced
    if precision != "int8":
        return
    model = onnx.load(path)
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    scaled = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert scaled
    for node in scaled:
        assert constants[node.input[2]].dtype == np.int8
        assert not constants[node.input[2]].any()
        assert (constants[node.input[1]] > 0).all()
    weights = [constants[node.input[0]] for node in scaled if node.input[0] in constants]
    assert {array.dtype for array in weights} == {np.dtype(np.int8)}
    assert all(np.abs(array).max() == LEVELS for array in weights), "-128 is for TensorRT no int8"
    channels = [constants[n.input[1]].size for n in scaled if n.input[0] in constants]
    assert all(count in array.shape for count, array in zip(channels, weights, strict=True))


def test_half_refuses_weights_beyond_its_range() -> None:
    model = ir.load(exported.graph("mixer_tiny"))
    value = model.graph.initializers["classifier.MixerBlock_0.channel_mixing.Dense_0.kernel"]
    assert value.const_value is not None
    value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1e7))
    with pytest.raises(HalfRangeError, match=r"Dense_0\.kernel holds .* --precision fp32"):
        to_half(model)


@pytest.mark.parametrize("image_size", [32, 64])
def test_token_mixing_with_weights_on_the_right_is_the_same_function(
    image_size: int, tmp_path: Path
) -> None:
    images = probe_images(image_size, 3)
    classifier = random_classifier("mixer_testing", image_size)
    expected = open_graph(exported.graph("mixer_testing")) if image_size == 32 else None
    put_weights_right(classifier.module)
    save_graph(build_graph(classifier), tmp_path / "model.onnx")
    session = open_graph(tmp_path / "model.onnx")
    logits = session.run(["logits"], {"image": images})[0]
    if expected is not None:
        np.testing.assert_allclose(
            logits, expected.run(["logits"], {"image": images})[0], atol=1e-6
        )
    products = [n for n in onnx.load(tmp_path / "model.onnx").graph.node if n.op_type == "MatMul"]
    assert all(not node.input[0].startswith("classifier.") for node in products)


def test_the_best_limit_trades_clipping_against_rounding() -> None:
    random = np.random.default_rng(0)
    normal = Magnitudes()
    for _ in range(4):
        normal.add(random.standard_normal((50, 1000)).astype(np.float32))
    assert 3.0 < normal.best_limit() < 5.0
    outlier = Magnitudes()
    outlier.add(random.standard_normal(200_000).astype(np.float32))
    outlier.add(np.array([40.0], np.float32))
    # Least squares: 40 - L = L · 200,000 / (12 · 127²).
    assert outlier.best_limit() == pytest.approx(19.7, rel=0.02)
    uniform = Magnitudes()
    uniform.add(random.uniform(-3, 3, 100_000).astype(np.float32))
    assert uniform.best_limit() == pytest.approx(3.0, rel=0.02)


def test_the_limit_of_zeros_is_a_number() -> None:
    magnitudes = Magnitudes()
    magnitudes.add(np.zeros(10, np.float32))
    assert magnitudes.best_limit() > 0


def test_a_scale_seen_at_once_or_in_parts_is_the_same() -> None:
    array = np.random.default_rng(1).standard_normal(10_000).astype(np.float32)
    whole, parts = Magnitudes(), Magnitudes()
    whole.add(array)
    for part in np.split(array, 10):
        parts.add(part)
    assert parts.best_limit() == pytest.approx(whole.best_limit(), rel=0.01)


def test_the_gate() -> None:
    classifier = exported.classifier("mixer_tiny")
    session = open_graph(exported.graph("mixer_tiny"))
    images = probe_images(32, 30)
    same = judge(partial(torch_logits, classifier), session, "int8", images)
    assert (same.images, same.same_class, same.passed) == (30, 30, True)
    other_graph = open_graph(exported.graph("mixer_testing"))
    other = judge(partial(torch_logits, classifier), other_graph, "int8", images)
    assert not other.passed
    assert "of 30 images" in str(other)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_gate_is_a_share_and_one_image_is_chance(precision: Precision) -> None:
    allowed = int(1000 * (1 - GATES[precision]))
    good = Judgement(precision, 1000, 1000 - allowed, 0.1)
    assert good.passed
    assert not dataclasses.replace(good, same_class=good.same_class - 1).passed
    assert not dataclasses.replace(good, max_abs_logit_diff=float("nan")).passed
    assert Judgement(precision, 20, 19, 0.1).passed
    assert not Judgement(precision, 20, 18, 0.1).passed


def write_photos(folder: Path, count: int) -> None:
    for index in range(count):
        path = folder / f"class_{index % 3}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo(index, 60, 40))


def test_images_are_found_shared_out_and_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(tmp_path, 24)
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("no image either")
    samples = gather_images(tmp_path, Preprocessing(), 32)
    assert samples.calibration.shape == samples.held_back.shape == (12, 32, 32, 3)
    both = np.concatenate([samples.calibration, samples.held_back])
    assert len(np.unique(both, axis=0)) == 24, "nothing is judged on what it was calibrated with"
    assert "broken.png is skipped" in capsys.readouterr().err


def test_too_few_and_too_many_images(tmp_path: Path) -> None:
    write_photos(tmp_path, 19)
    with pytest.raises(UsageError, match="at least 20 images, found 19"):
        gather_images(tmp_path, Preprocessing(), 32)
    for index in range(MOST_IMAGES):
        (tmp_path / f"{index}.jpg").symlink_to(tmp_path / "class_0" / "0.jpg")
    samples = gather_images(tmp_path, Preprocessing(), 8)
    assert len(samples.calibration) + len(samples.held_back) == MOST_IMAGES


def test_without_images_half_is_judged_by_synthetic_ones() -> None:
    samples = gather_images(None, Preprocessing(), 32)
    assert len(samples.calibration) == 0
    assert len(samples.held_back) >= 20


def test_images_are_resized_as_tensorflow_does(tmp_path: Path) -> None:
    with np.load(exported.GOLDEN / "preprocess" / "case.npz") as case:
        images, expected = case["images"], case["official_eval"] * 127.5 + 127.5
    paths = [tmp_path / f"{index}.png" for index in range(len(images))]
    for path, pixels, wanted in zip(paths, images, expected, strict=True):
        Image.fromarray(pixels).save(path)
        found = read_image(path, Preprocessing(antialias=False), 32)
        assert found is not None
        assert np.abs(found - wanted).max() <= 0.51, "but for rounding to whole numbers"
    assert find_images(tmp_path) == paths


def test_the_short_side_keeps_the_aspect(tmp_path: Path) -> None:
    path = tmp_path / "wide.jpg"
    path.write_bytes(photo(3, 200, 100))
    rule = Preprocessing("shortest", "bicubic", True, 0.5)
    found = read_image(path, rule, 32)
    whole = read_image(path, dataclasses.replace(rule, crop_fraction=1.0), 64)
    assert found is not None
    assert whole is not None
    assert found.shape == (32, 32, 3)
    np.testing.assert_array_equal(found, whole[16:48, 16:48])
