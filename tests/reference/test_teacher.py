"""Teachers: checkpoints and ONNX graphs, which answer for the pixels that the student sees."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest

from reference import checkpoint, models, teacher
from reference.config import ConfigError, TrainConfig
from reference.optimizer import build_optimizer
from reference.parallel import Layout
from reference.serialize import serialize
from reference.step import Now, first_variables, make_step

CHECKOUT = Path(__file__).parents[2]
GOLDEN = CHECKOUT / "tests/golden"
ONNX = CHECKOUT / "model_repository/mixer_cifar10/1/model.onnx"
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
INPUTS = jnp.asarray((IMAGES - 127.5) / 127.5, jnp.float32)


@pytest.mark.parametrize("folder", ["mixer_tiny", "vit_tiny_token", "bit_tiny"])
def test_a_checkpoint_of_any_family_answers_with_its_logits(folder: str) -> None:
    path = GOLDEN / folder / "checkpoint.npz"
    found = teacher.read(path, 10, "float32")
    pretrained = models.read(path)
    expected = models.apply(models.build(pretrained.config, 10), pretrained.params, INPUTS)
    np.testing.assert_allclose(found.logits(found.params, INPUTS), expected, rtol=1e-6, atol=1e-6)


def test_a_teacher_of_another_size_sees_the_same_view_resized() -> None:
    found = teacher.read(GOLDEN / "mixer_tiny/checkpoint.npz", 10, "float32")
    large = jnp.repeat(jnp.repeat(INPUTS, 2, axis=1), 2, axis=2)  # 64 pixels: each one twice
    small = found.logits(found.params, INPUTS)
    assert np.corrcoef(np.ravel(found.logits(found.params, large)), np.ravel(small))[0, 1] > 0.9


def test_an_onnx_classifier_answers_with_its_logits() -> None:
    found = teacher.read(ONNX, 10, "float32")
    session = onnxruntime.InferenceSession(ONNX, providers=["CPUExecutionProvider"])
    expected = session.run(["logits"], {"image": IMAGES})[0]
    logits = jax.jit(found.logits)(found.params, INPUTS)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_a_teacher_of_other_classes_or_of_no_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="knows 10 classes, the data have 3"):
        teacher.read(ONNX, 3, "float32")
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"no graph")
    with pytest.raises(ConfigError, match=r"teacher: .*model\.onnx: "):
        teacher.read(broken, 10, "float32")
    with pytest.raises(ConfigError, match=r"onnx: .*model\.onnx: "):
        serialize(GOLDEN / "mixer_tiny/checkpoint.npz", "x", tmp_path, onnx=broken)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_student_that_is_its_teacher_has_nothing_to_learn() -> None:
    path = GOLDEN / "mixer_tiny/checkpoint.npz"
    pretrained = models.read(path)
    config = TrainConfig(
        teacher=str(path),
        temperature=2.0,
        batch_size=4,
        mixup=1.0,
        optimizer="sgd",
        weight_decay=0.0,
    )
    model, rule = models.build(pretrained.config, 10), build_optimizer(config)
    layout = Layout.over(jax.devices()[:1])
    known = teacher.read(path, 10, "float32")
    step = make_step(model, 10, rule, config, layout, teacher=known)
    now = Now(np.int32(3), np.uint32(0), np.float32(0.1))
    variables = layout.copy(first_variables(pretrained.params, rule, config))
    changed, measured = step(variables, now, IMAGES, np.arange(4, dtype=np.int32), known.params)
    # Whatever was flipped, shifted and mixed, both saw the same; labels count for nothing.
    assert float(measured.loss) == pytest.approx(0, abs=1e-6)
    before = checkpoint.flatten(pretrained.params)
    for key, value in checkpoint.flatten(changed.params).items():
        np.testing.assert_allclose(value, before[key], atol=1e-5, err_msg=key)
