"""The Flax Mixer against the paper's sizes and against logits computed by the official code."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reference import checkpoint
from reference.augment import normalise
from reference.mixer import VARIANTS, MlpMixer, matmul
from reference.train import logits_of

GOLDEN = Path(__file__).parent / "golden"

# With 1,000 classes at 224 × 224.
PARAMETERS = {
    "mixer_s32": 19_104_624,
    "mixer_s16": 18_528_264,
    "mixer_b32": 60_293_428,
    "mixer_b16": 59_880_472,
    "mixer_l32": 206_939_264,
    "mixer_l16": 208_196_168,
    "mixer_h14": 432_350_952,
}


@pytest.mark.parametrize("variant", PARAMETERS)
def test_the_variants_have_exactly_the_published_number_of_parameters(variant: str) -> None:
    model = MlpMixer(VARIANTS[variant], num_classes=1000)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == PARAMETERS[variant]


def test_no_published_variant_is_missing_from_the_test_above() -> None:
    assert set(VARIANTS) - {"mixer_cifar10", "mixer_testing"} == set(PARAMETERS)


def test_logits_equal_those_of_the_official_code() -> None:
    config, num_classes, params = checkpoint.read_mixer(GOLDEN / "mixer_tiny/checkpoint.npz")
    case = np.load(GOLDEN / "mixer_tiny/case.npz")
    model = MlpMixer(config, num_classes)
    logits = logits_of(model, params, normalise(jnp.asarray(case["images"])))
    np.testing.assert_allclose(logits, case["logits"], rtol=0, atol=2e-5)


def test_the_bias_that_no_logit_shows_is_kept() -> None:
    # Logits hardly move with token_mixing/Dense_1/bias: it adds the same to every channel of a
    # token, which the next LayerNorm takes away. So the arrays themselves are compared.
    path = GOLDEN / "mixer_tiny/checkpoint.npz"
    _, _, params = checkpoint.read_mixer(path)
    written = checkpoint.flatten(params)
    with np.load(path) as published:
        assert set(written) == set(published.files)
        for key in published.files:
            np.testing.assert_array_equal(written[key], published[key], err_msg=key)


def test_the_kernel_gradient_is_that_of_a_plain_matrix_product() -> None:
    x = jax.random.normal(jax.random.key(0), (3, 5, 7))
    kernel = jax.random.normal(jax.random.key(1), (7, 4))

    def ours(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(matmul(x, kernel)))

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(x @ kernel))

    for mine, theirs in zip(
        jax.grad(ours, (0, 1))(x, kernel), jax.grad(plain, (0, 1))(x, kernel), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
