"""What a gradient does to the parameters: clipping, Adam, Muon or momentum, weight decay.

In: a `TrainConfig`. Out: an optax transformation, to be multiplied by the learning rate.
Which arrays decay, and which ones Muon takes, is decided by their published names. The order is
big_vision's (optax.py at 0127fb6, lines 114 to 149): clip, direction, decay, learning rate; its
`wd`, which it does not multiply by the peak rate, is here `weight_decay` × `learning_rate`, as in
AdamW.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from reference.config import TrainConfig

Dimensions = optax.contrib.MuonDimensionNumbers
# The arrays that Muon takes as matrices: (input axes, output axes). Everything else goes to Adam:
# biases, norms, positions, the class token, and the first and the last layer of a network.
_MATRICES: tuple[tuple[re.Pattern[str], optax.contrib.MuonDimensionNumbers], ...] = (
    (re.compile(r"(token|channel)_mixing/Dense_[01]/kernel$"), Dimensions((0,), (1,))),
    (re.compile(r"/MlpBlock_3/Dense_[01]/kernel$"), Dimensions((0,), (1,))),
    (re.compile(r"^pre_logits/kernel$"), Dimensions((0,), (1,))),
    (re.compile(r"/(query|key|value)/kernel$"), Dimensions((0,), (1, 2))),
    (re.compile(r"Attention_1/out/kernel$"), Dimensions((0, 1), (2,))),
    (re.compile(r"/block\d+/.*standardized_conv2d/kernel$"), Dimensions((0, 1, 2), (3,))),
)


def decays(params: optax.Params) -> optax.Params:
    """A tree of bool: what weight decay pulls towards zero, which is kernels and nothing else."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: _name(path).rsplit("/", 1)[-1] == "kernel", params
    )


def muon_dimensions(params: optax.Params) -> optax.Params:
    """A tree of what Muon takes as matrices, with their axes; None for what Adam takes."""

    def dimensions(
        path: tuple[Any, ...], _: jax.Array
    ) -> optax.contrib.MuonDimensionNumbers | None:
        name = _name(path)
        return next((axes for pattern, axes in _MATRICES if pattern.search(name)), None)

    return jax.tree_util.tree_map_with_path(dimensions, params)


def build_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """Gradient clipping, the direction of the step, and weight decay.

    A step takes the result times the learning rate off the parameters.
    """
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
        _direction(config),
        optax.add_decayed_weights(config.weight_decay, decays),
    )


def _direction(config: TrainConfig) -> optax.GradientTransformation:
    """Which way the parameters go, against the gradient; as large as at a learning rate of 1."""
    moments = jnp.bfloat16 if config.moments == "bfloat16" else jnp.float32
    if config.optimizer == "sgd":
        return optax.trace(config.momentum, accumulator_dtype=moments)
    if config.optimizer == "adamw":
        return optax.scale_by_adam(config.beta1, config.beta2, mu_dtype=moments)
    # Muon (arXiv 2502.16982) takes matrices only, with updates as large as AdamW's usually are, so
    # that one learning rate does for both.
    muon = optax.contrib.muon(
        1.0,
        adam_b1=config.beta1,
        adam_b2=config.beta2,
        mu_dtype=moments,
        consistent_rms=0.2,
        muon_weight_dimension_numbers=muon_dimensions,
    )
    return optax.chain(muon, optax.scale(-1.0))  # its own updates point down already


def _name(path: tuple[Any, ...]) -> str:
    return "/".join(str(part.key) for part in path)
