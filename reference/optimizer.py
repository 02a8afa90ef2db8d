"""From a gradient to the change of the parameters: clipping, Adam, Muon or momentum, weight decay.

In: a `TrainConfig`. Out: an optax transformation, whose result is multiplied by the learning rate.
The published names of the arrays decide which arrays decay, and which ones Muon takes. The order is
big_vision's (optax.py at 0127fb6, lines 114 to 149): clip, direction, decay, learning rate.
big_vision does not multiply its `wd` by the peak rate; this `wd` is `weight_decay` ×
`learning_rate` here, as in AdamW.
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
    """A tree of bool: whether weight decay acts on an array, which is so for kernels alone."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: _name(path).rsplit("/", 1)[-1] == "kernel", params
    )


def muon_dimensions(params: optax.Params) -> optax.Params:
    """A tree with the axes of each array that Muon takes as a matrix; None for Adam's arrays."""

    def dimensions(
        path: tuple[Any, ...], _: jax.Array
    ) -> optax.contrib.MuonDimensionNumbers | None:
        name = _name(path)
        return next((axes for pattern, axes in _MATRICES if pattern.search(name)), None)

    return jax.tree_util.tree_map_with_path(dimensions, params)


def build_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """Gradient clipping, the direction of the step, and weight decay.

    A step subtracts the result times the learning rate from the parameters.
    """
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
        _direction(config),
        optax.add_decayed_weights(config.weight_decay, decays),
    )


def _direction(config: TrainConfig) -> optax.GradientTransformation:
    """The direction of a step, scaled for a learning rate of 1."""
    moments = jnp.bfloat16 if config.moments == "bfloat16" else jnp.float32
    if config.optimizer == "sgd":
        return optax.trace(config.momentum, accumulator_dtype=moments)
    if config.optimizer == "adamw":
        return optax.scale_by_adam(config.beta1, config.beta2, mu_dtype=moments)
    # Muon (arXiv 2502.16982) takes matrices only. Its updates are as large as AdamW's usually are,
    # so that one learning rate suits both.
    muon = optax.contrib.muon(
        1.0,
        adam_b1=config.beta1,
        adam_b2=config.beta2,
        mu_dtype=moments,
        consistent_rms=0.2,
        muon_weight_dimension_numbers=muon_dimensions,
    )
    return optax.chain(muon, optax.scale(-1.0))  # Muon's updates already have the negative sign


def _name(path: tuple[Any, ...]) -> str:
    return "/".join(str(part.key) for part in path)
