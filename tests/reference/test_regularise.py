"""Stochastic depth, dropout, initial values, accumulation and the average, by hand."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contracts.variants import ViTSizes
from reference import checkpoint, models
from reference.config import ConfigError, TrainConfig
from reference.optimizer import build_optimizer
from reference.parallel import Layout
from reference.regularise import sincos_positions, skip_rate, skip_some
from reference.start import start
from reference.step import Now, Variables, first_variables, make_step

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)
LABELS = np.arange(8, dtype=np.int32) % 3
PLAIN = TrainConfig(
    variant="mixer_testing",
    batch_size=8,
    flip=False,
    crop_padding=0,
    clip_norm=0,
    label_smoothing=0.0,
    optimizer="sgd",
    momentum=0.0,
    weight_decay=0.0,
)


def test_blocks_are_skipped_more_often_the_later_they_come() -> None:
    assert [skip_rate(0.1, index, 5) for index in range(5)] == pytest.approx(
        [0, 0.025, 0.05, 0.075, 0.1]
    )
    assert skip_rate(0.1, 0, 1) == 0


class Skips(nn.Module):
    """Nothing but stochastic depth."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return skip_some(self, x, 0.3, train=train)


def test_examples_are_skipped_whole_each_by_itself_and_none_is_scaled() -> None:
    x = jnp.ones((4000, 3, 2))
    found = Skips().apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})
    assert isinstance(found, jax.Array)
    rows = np.asarray(found).reshape(4000, -1)
    assert set(np.unique(rows)) == {0.0, 1.0}
    assert np.all(rows == rows[:, :1])
    assert rows[:, 0].mean() == pytest.approx(0.7, abs=0.03)
    np.testing.assert_array_equal(Skips().apply({}, x, train=False), x)


@pytest.mark.parametrize("variant", ["mixer_testing", "vit_testing"])
def test_a_network_that_skips_nearly_all_of_its_last_block_is_the_one_before_it(
    variant: str,
) -> None:
    sizes = models.variant(variant)
    model = models.build(sizes, 3, stochastic_depth=0.999999)
    params = params_with_a_head(model)
    inputs = jnp.asarray(IMAGES / 127.5 - 1, jnp.float32)
    depth = "num_layers" if variant.startswith("vit") else "num_blocks"
    blocks = getattr(sizes, depth)
    fewer: dict[str, Any] = {depth: blocks - 1}
    shorter = models.build(dataclasses.replace(sizes, **fewer), 3)
    found = models.apply(model, params, inputs, jax.random.key(0))
    np.testing.assert_allclose(found, models.apply(shorter, params, inputs), rtol=1e-5, atol=1e-6)
    plain = models.apply(models.build(sizes, 3), params, inputs)
    np.testing.assert_array_equal(models.apply(model, params, inputs), plain)  # not in training
    assert np.max(np.abs(found - plain)) > 1e-3


def params_with_a_head(model: nn.Module) -> dict[str, Any]:
    params = models.init(model, jax.random.key(0), 32)
    flat = checkpoint.flatten(params)
    flat["head/kernel"] = np.random.default_rng(1).normal(size=flat["head/kernel"].shape)
    return checkpoint.unflatten({k: np.asarray(v, np.float32) for k, v in flat.items()})


def test_what_a_family_does_not_have_is_refused() -> None:
    for config, field in (
        (TrainConfig(variant="bit_testing", stochastic_depth=0.1), "stochastic_depth"),
        (TrainConfig(variant="mixer_testing", dropout=0.1), "dropout"),
    ):
        with pytest.raises(ConfigError, match=f"{field}: a .* has none"):
            start(config, None).model(3)
    with pytest.raises(ConfigError, match="pooling: only a ViT has that choice"):
        start(TrainConfig(variant="mixer_testing", pooling="mean"), None)


def test_a_vit_begins_as_the_paper_s_code_does() -> None:
    # Large enough that deviations can be told apart.
    sizes = ViTSizes(8, 96, 2, 3, 192)
    flat = checkpoint.flatten(models.init(models.build(sizes, 3), jax.random.key(0), 32))
    block = "Transformer/encoderblock_1"
    attention = f"{block}/MultiHeadDotProductAttention_1"
    for name, fans in (
        (f"{block}/MlpBlock_3/Dense_0/kernel", 96 + 192),
        (f"{block}/MlpBlock_3/Dense_1/kernel", 96 + 192),
        (f"{attention}/query/kernel", 96 + 96),  # as one matrix of all heads
        (f"{attention}/out/kernel", 96 + 96),
    ):
        limit = np.sqrt(6 / fans)  # xavier_uniform
        assert np.abs(flat[name]).max() == pytest.approx(limit, rel=0.02), name
        assert flat[name].std() == pytest.approx(limit / np.sqrt(3), rel=0.05), name
    assert flat[f"{block}/MlpBlock_3/Dense_0/bias"].std() == pytest.approx(1e-6, rel=0.3)
    assert flat["Transformer/posembed_input/pos_embedding"].std() == pytest.approx(0.02, rel=0.1)
    for zeros in ("cls", "head/kernel", "head/bias", f"{attention}/query/bias"):
        assert not flat[zeros].any(), zeros


def test_fixed_positions_are_the_published_sines() -> None:
    found = np.asarray(sincos_positions(3, 8))[0]
    assert found.shape == (9, 8)
    # Row 1, column 2; of the two frequencies, 1 and 1/10000.
    column, row = np.array([2, 2e-4]), np.array([1, 1e-4])
    expected = [*np.sin(column), *np.cos(column), *np.sin(row), *np.cos(row)]
    np.testing.assert_allclose(found[5], expected, rtol=1e-5, atol=1e-7)


def one_step(config: TrainConfig, number: int = 5, variables: Variables | None = None) -> Variables:
    model = models.build(models.variant("mixer_testing"), 3)
    rule = build_optimizer(config)
    if variables is None:
        variables = first_variables(params_with_a_head(model), rule, config)
    layout = Layout.over(jax.devices()[:1])
    step = make_step(model, 3, rule, config, layout)
    now = Now(np.int32(number), np.uint32(0), np.float32(0.5))
    changed: Variables
    changed, _ = step(layout.copy(variables), now, IMAGES, LABELS, {})
    return changed


def test_a_gradient_in_parts_is_that_of_the_whole_batch() -> None:
    whole = checkpoint.flatten(one_step(PLAIN).params)
    parts = checkpoint.flatten(one_step(dataclasses.replace(PLAIN, accumulate=4)).params)
    for key, value in whole.items():
        np.testing.assert_allclose(parts[key], value, rtol=1e-4, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("number", [0, 5, 10_000])
def test_the_average_follows_closely_at_first(number: int) -> None:
    config = dataclasses.replace(PLAIN, ema_decay=0.9)
    model = models.build(models.variant("mixer_testing"), 3)
    before = checkpoint.flatten(params_with_a_head(model))
    after = one_step(config, number)
    decay = min(0.9, (1 + number) / (10 + number))
    params = checkpoint.flatten(after.params)
    for key, value in checkpoint.flatten(after.average).items():
        expected = decay * before[key] + (1 - decay) * params[key]
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-7, err_msg=key)
