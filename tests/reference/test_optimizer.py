"""What decays, what Muon takes as matrices, and steps computed by hand beside the optimiser's."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from reference import checkpoint, models
from reference.config import TrainConfig
from reference.optimizer import build_optimizer, decays, muon_dimensions

VIT_BLOCK = "Transformer/encoderblock_0"
ATTENTION = f"{VIT_BLOCK}/MultiHeadDotProductAttention_1"
UNIT = "resnet/block1/unit01"
CONV = "standardized_conv2d/kernel"
# Of one block: what decays, and what Muon takes as a matrix of these input and output axes.
MATRICES: dict[str, dict[str, tuple[tuple[int, ...], tuple[int, ...]]]] = {
    "mixer_testing": {
        f"MixerBlock_0/{mlp}_mixing/Dense_{index}/kernel": ((0,), (1,))
        for mlp in ("token", "channel")
        for index in range(2)
    },
    "vit_testing": {
        f"{ATTENTION}/query/kernel": ((0,), (1, 2)),
        f"{ATTENTION}/key/kernel": ((0,), (1, 2)),
        f"{ATTENTION}/value/kernel": ((0,), (1, 2)),
        f"{ATTENTION}/out/kernel": ((0, 1), (2,)),
        f"{VIT_BLOCK}/MlpBlock_3/Dense_0/kernel": ((0,), (1,)),
        f"{VIT_BLOCK}/MlpBlock_3/Dense_1/kernel": ((0,), (1,)),
    },
    "bit_testing": {
        f"{UNIT}/{part}/{CONV}": ((0, 1, 2), (3,)) for part in ("a", "a/proj", "b", "c")
    },
}
# What decays, but goes to Adam: the first and the last layer.
ENDS = {
    "mixer_testing": {"stem/kernel", "head/kernel"},
    "vit_testing": {"embedding/kernel", "head/kernel"},
    "bit_testing": {f"resnet/root_block/{CONV}", "resnet/head/conv2d/kernel"},
}
FIRST_BLOCK = {
    "mixer_testing": "MixerBlock_0/",
    "vit_testing": VIT_BLOCK,
    "bit_testing": UNIT,
}


def params_of(variant: str) -> optax.Params:
    """Of the names and shapes of a network; no program has to be compiled for them."""
    shapes = models.shapes(models.build(models.variant(variant), 3), 32)
    return jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, np.float32), shapes)


def of_one_block(variant: str, names: set[str]) -> set[str]:
    """Without the blocks after the first."""
    blocks = ("MixerBlock_", "Transformer/encoderblock_", "resnet/block")
    first = FIRST_BLOCK[variant]
    return {name for name in names if not name.startswith(blocks) or name.startswith(first)}


@pytest.mark.parametrize("variant", MATRICES)
def test_kernels_decay_and_nothing_else(variant: str) -> None:
    flat = checkpoint.flatten_tree(decays(params_of(variant)))
    decayed = {name for name, value in flat.items() if value}
    assert of_one_block(variant, decayed) == MATRICES[variant].keys() | ENDS[variant]
    assert len(decayed) < len(flat) / 2


@pytest.mark.parametrize("variant", MATRICES)
def test_muon_takes_the_matrices_between_the_ends(variant: str) -> None:
    tree = muon_dimensions(params_of(variant))
    flat = {key: value for key, value in checkpoint.flatten_tree(tree).items() if value is not None}
    found = {key: (value.reduction_axis, value.output_axis) for key, value in flat.items()}
    one_block = of_one_block(variant, set(found))
    assert {key: found[key] for key in one_block} == MATRICES[variant]


# A little of everything that there is, with small matrices.
ASSORTED = {
    "stem/kernel": (2, 2, 3, 4),
    "MixerBlock_0/channel_mixing/Dense_0/kernel": (4, 8),
    "MixerBlock_0/channel_mixing/Dense_0/bias": (8,),
    f"{ATTENTION}/query/kernel": (6, 2, 3),
    f"{ATTENTION}/query/bias": (2, 3),
    f"{ATTENTION}/out/kernel": (2, 3, 6),
    f"{UNIT}/b/{CONV}": (3, 3, 2, 6),
    f"{UNIT}/b/group_norm/gamma": (2,),
    "Transformer/posembed_input/pos_embedding": (1, 5, 6),
    "cls": (1, 1, 6),
}


def assorted(seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return checkpoint.unflatten(
        {k: random.normal(size=shape).astype(np.float32) for k, shape in ASSORTED.items()}
    )


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_without_a_gradient_only_kernels_move_and_all_alike(
    optimizer: Literal["adamw", "muon", "sgd"],
) -> None:
    params = assorted(0)
    rule = build_optimizer(TrainConfig(optimizer=optimizer, weight_decay=0.25))
    zeros = jax.tree.map(np.zeros_like, params)
    updates, _ = jax.jit(rule.update)(zeros, rule.init(params), params)
    before = checkpoint.flatten(params)
    for key, update in checkpoint.flatten(updates).items():
        expected = 0.25 * before[key] if key.endswith("kernel") else 0
        np.testing.assert_allclose(update, expected, rtol=1e-6, err_msg=key)


def test_muon_makes_its_matrices_orthogonal_and_leaves_the_rest_to_adam() -> None:
    params = assorted(0)
    # Stretched, so that they are far from orthogonal.
    gradients = jax.tree.map(
        lambda leaf: leaf * np.geomspace(1, 20, leaf.shape[-1], dtype=np.float32), assorted(1)
    )
    rule = build_optimizer(TrainConfig(optimizer="muon", weight_decay=0, clip_norm=0))
    updates, _ = jax.jit(rule.update)(gradients, rule.init(params), params)
    given, matrices = (
        checkpoint.flatten(gradients),
        checkpoint.flatten_tree(muon_dimensions(params)),
    )
    for key, update in checkpoint.flatten(updates).items():
        axes = matrices.get(key)
        if axes is None:
            # Adam's first step is the gradient's sign, here as Nesterov looks ahead: the mean as it
            # would be a step later, and the gradient itself.
            expected = np.sign(given[key]) * (0.9 * 0.1 / (1 - 0.9**2) + 0.1 / (1 - 0.9))
            np.testing.assert_allclose(update, expected, atol=1e-3, err_msg=key)
            continue
        rows = int(np.prod([update.shape[axis] for axis in axes.reduction_axis]))
        values = np.linalg.svd(update.reshape(rows, -1), compute_uv=False)
        before = np.linalg.svd(given[key].reshape(rows, -1), compute_uv=False)
        # Five iterations of Newton and Schulz bring them to between 0.7 and 1.2 of one value.
        assert values.max() / values.min() < 1.2 / 0.65 < before.max() / before.min(), key
        # The size of AdamW's usual update: 0.2 for each of the numbers.
        np.testing.assert_allclose(np.sqrt(np.mean(update**2)), 0.2, rtol=0.35, err_msg=key)
        assert np.sum(given[key] * update) > 0, key
        matrix = given[key].reshape(rows, -1).astype(np.float64)
        expected = 0.2 * np.sqrt(max(matrix.shape)) * newton_schulz(matrix)
        np.testing.assert_allclose(
            update.reshape(rows, -1), expected, rtol=1e-4, atol=1e-5, err_msg=key
        )


def newton_schulz(matrix: np.ndarray) -> np.ndarray:
    """Muon's five iterations, as its author published them (github.com/KellerJordan/Muon)."""
    wide = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    wide = wide / np.linalg.norm(wide)
    for _ in range(5):
        square = wide @ wide.T
        wide = 3.4445 * wide + (-4.7750 * square + 2.0315 * square @ square) @ wide
    found: np.ndarray = wide if len(matrix) <= matrix.shape[1] else wide.T
    return found


def test_adam_with_decay_by_hand() -> None:
    config = TrainConfig(beta1=0.9, beta2=0.999, weight_decay=0.1, clip_norm=0)
    params = {"head": {"kernel": jnp.array([2.0]), "bias": jnp.array([3.0])}}
    rule = build_optimizer(config)
    state, mean, square = rule.init(params), 0.0, 0.0
    for step, gradient in enumerate((0.5, -0.25, 1.0), 1):
        gradients = jax.tree.map(lambda leaf, g=gradient: jnp.full_like(leaf, g), params)
        update, state = rule.update(gradients, state, params)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        adam = (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        np.testing.assert_allclose(update["head"]["kernel"], adam + 0.1 * 2, rtol=1e-4)
        np.testing.assert_allclose(update["head"]["bias"], adam, rtol=1e-4)  # float32 squares


def test_momentum_after_clipping_by_hand() -> None:
    config = TrainConfig(optimizer="sgd", momentum=0.9, weight_decay=0, clip_norm=1)
    params = {"head": {"kernel": jnp.zeros(2)}}
    rule = build_optimizer(config)
    state = rule.init(params)
    first, state = rule.update({"head": {"kernel": jnp.array([3.0, 4.0])}}, state, params)
    np.testing.assert_allclose(first["head"]["kernel"], [0.6, 0.8], rtol=1e-6)  # of norm 1
    second, _ = rule.update({"head": {"kernel": jnp.array([0.1, 0.0])}}, state, params)
    np.testing.assert_allclose(second["head"]["kernel"], [0.9 * 0.6 + 0.1, 0.9 * 0.8], rtol=1e-6)


def test_moments_may_be_kept_in_bfloat16() -> None:
    for optimizer in ("adamw", "sgd"):
        config = TrainConfig(optimizer=optimizer, moments="bfloat16")
        state = build_optimizer(config).init({"head": {"kernel": jnp.ones(2)}})
        kinds = [leaf.dtype for leaf in jax.tree.leaves(state) if leaf.ndim]
        assert kinds.count(jnp.bfloat16) == 1
