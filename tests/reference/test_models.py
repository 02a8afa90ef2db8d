"""ViT and BiT in Flax against the official code; every family's files, sizes and mistakes."""

from functools import partial
from pathlib import Path

import jax
import numpy as np
import numpy.typing as npt
import pytest

from contracts.published import CheckpointError, Contents, published_shapes
from contracts.variants import VARIANTS
from reference import checkpoint, models, resolution
from tests.parameter_counts import OURS, PUBLISHED

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = [
    ("mixer_tiny", "checkpoint.npz", 2e-5),
    ("mixer_tiny_hires_k2", "checkpoint.npz", 2e-5),
    ("vit_tiny_token", "checkpoint.npz", 2e-5),
    ("vit_tiny_token", "checkpoint_linen_names.npz", 2e-5),
    ("vit_tiny_gap", "checkpoint.npz", 2e-5),
    ("vit_tiny_gap", "checkpoint_linen_names.npz", 2e-5),
    ("vit_tiny_token_prelogits", "checkpoint.npz", 2e-5),
    ("vit_tiny_token_prelogits", "checkpoint_linen_names.npz", 2e-5),
    ("vit_tiny_token_hires_48", "checkpoint.npz", 2e-5),
    ("bit_tiny", "checkpoint.npz", 5e-5),
]


def answer(
    pretrained: models.Pretrained, images: npt.NDArray[np.float32], dtype: str = "float32"
) -> jax.Array:
    """Logits of the network that a file holds."""
    model = models.build(pretrained.config, pretrained.num_classes, dtype)
    logits: jax.Array = jax.jit(partial(models.apply, model))(pretrained.params, images)
    return logits


@pytest.mark.parametrize("variant", PUBLISHED)
def test_the_variants_have_exactly_the_published_number_of_parameters(variant: str) -> None:
    shapes = models.shapes(models.build(models.variant(variant), 1000), 224)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == PUBLISHED[variant]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_network_has_the_published_names_and_shapes(variant: str) -> None:
    row = VARIANTS[variant]
    model = models.build(row.sizes, row.num_classes)
    network = checkpoint.flatten_tree(models.shapes(model, row.image_size))
    size = None if row.sizes.family == "bit" else row.image_size
    published = published_shapes(Contents(row.sizes, size, row.num_classes))
    assert {key: leaf.shape for key, leaf in network.items()} == published


def test_no_published_variant_is_missing_from_the_test_above() -> None:
    assert set(VARIANTS) == PUBLISHED.keys() | OURS.keys()


@pytest.mark.parametrize(("folder", "file", "tolerance"), CASES)
def test_logits_equal_those_of_the_official_code(folder: str, file: str, tolerance: float) -> None:
    with np.load(GOLDEN / folder / "case.npz") as case:
        images, expected = case["input"], case["logits"]
    pretrained = resolution.at(models.read(GOLDEN / folder / file), images.shape[1])
    logits = answer(pretrained, images)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("folder", ["mixer_tiny", "vit_tiny_token", "bit_tiny"])
def test_bfloat16_is_what_is_computed_in_not_what_comes_out(folder: str) -> None:
    with np.load(GOLDEN / folder / "case.npz") as case:
        images, expected = case["input"], case["logits"]
    pretrained = models.read(GOLDEN / folder / "checkpoint.npz")
    logits = answer(pretrained, images, "bfloat16")
    assert logits.dtype == np.float32
    difference = np.max(np.abs(logits - expected))
    assert 1e-4 < difference < 0.3


@pytest.mark.parametrize("folder", ["mixer_tiny", "vit_tiny_token", "bit_tiny"])
def test_what_was_read_is_written_again_under_the_published_names(folder: str) -> None:
    # Among them the two that no logit shows: ViT's key/bias, Mixer's token_mixing/Dense_1/bias.
    path = GOLDEN / folder / "checkpoint.npz"
    written = checkpoint.flatten(models.read(path).params)
    with np.load(path) as published:
        assert set(written) == set(published.files)
        for key in published.files:
            np.testing.assert_array_equal(written[key], published[key], err_msg=key)


def test_an_enlarged_mixer_answers_with_the_mean_over_the_tiles() -> None:
    low = models.read(GOLDEN / "mixer_tiny/checkpoint.npz")
    high = resolution.at(low, 96)
    images = np.random.default_rng(0).normal(size=(2, 96, 96, 3)).astype(np.float32)
    tiles = images.reshape(2, 3, 32, 3, 32, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 32, 32, 3)
    small = np.asarray(answer(low, tiles)).reshape(2, 9, 10)
    np.testing.assert_allclose(answer(high, images), small.mean(axis=1), atol=2e-6)


def test_a_mixer_is_enlarged_to_multiples_only() -> None:
    mixer = models.read(GOLDEN / "mixer_tiny/checkpoint.npz")
    with pytest.raises(CheckpointError, match="trained at 32 and can be enlarged to its multiples"):
        resolution.at(mixer, 48)
    with pytest.raises(CheckpointError, match="no multiple of the patch size 4"):
        resolution.at(mixer, 70)


@pytest.mark.parametrize("folder", ["mixer_tiny", "vit_tiny_token_prelogits", "bit_tiny"])
def test_a_new_head_guesses_uniformly(folder: str) -> None:
    pretrained = models.read(GOLDEN / folder / "checkpoint.npz")
    changed = resolution.with_new_head(pretrained, 3)
    size = pretrained.image_size or 32
    images = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    np.testing.assert_array_equal(answer(changed, images), np.zeros((2, 3)))
    assert models.read(GOLDEN / folder / "checkpoint.npz").num_classes == 10  # untouched


@pytest.mark.parametrize(
    ("folder", "change", "message"),
    [
        ("vit_tiny_token", {"cls": None}, r"pos_embedding: expected .*\(1, 16, 24\), found"),
        ("vit_tiny_token", {"head/bias": None}, "head/bias: expected shape .* no such key"),
        (
            "bit_tiny",
            {"resnet/head/conv2d/kernel": None},
            r"resnet/head/conv2d/kernel: expected an array \[1, 1, C, K\], found no such key",
        ),
        ("bit_tiny", {"resnet/group_norm/gamma": np.ones(7)}, r"gamma: expected shape \(1024,\)"),
        (
            "mixer_tiny",
            {"resnet/x": np.ones(1)},
            r"resnet/x: expected no such key, found shape \(1,\)",
        ),
        (
            "mixer_tiny",
            {"head/bias": np.ones(10, int)},
            "head/bias: expected floating-point numbers, found int64",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_key(
    tmp_path: Path, folder: str, change: dict[str, object], message: str
) -> None:
    arrays = dict(np.load(GOLDEN / folder / "checkpoint.npz"))
    changed = {k: np.asarray(v) for k, v in (arrays | change).items() if v is not None}
    checkpoint.write_arrays(tmp_path / "wrong.npz", changed)
    with pytest.raises(CheckpointError, match=message):
        models.read(tmp_path / "wrong.npz")


def test_numbered_convolutions_and_four_dimensional_norms_are_read(tmp_path: Path) -> None:
    path = GOLDEN / "bit_tiny/checkpoint.npz"
    arrays = dict(np.load(path))
    other = {
        key.replace("/standardized_conv2d/", "/standardized_conv2d_3/"): (
            value[None, None, None] if key.endswith(("gamma", "beta")) else value
        )
        for key, value in arrays.items()
    }
    checkpoint.write_arrays(tmp_path / "other.npz", other)
    found = checkpoint.flatten(models.read(tmp_path / "other.npz").params)
    for key, value in arrays.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)


def test_a_mistyped_variant_is_answered_with_the_nearest() -> None:
    with pytest.raises(models.UnknownVariantError, match="did you mean mixer_b16"):
        models.variant("mixer_b17")
