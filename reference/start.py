"""Where a training run begins: at random, from pretrained weights, or where it was stopped.

In: a `TrainConfig` with fields left open, and optionally the state of an earlier run. Out: the same
configuration, in which only the fields that depend on the number of images are left open; the
network; and the variables before the first step of this run.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from contracts.variants import Sizes, ViTSizes
from reference import models, resolution
from reference.config import ConfigError, TrainConfig
from reference.parallel import Layout
from reference.regularise import sincos_positions
from reference.settle import DEFAULT_VARIANT, go_on, settle
from reference.state import Record, States
from reference.step import Variables, first_variables


@dataclasses.dataclass(frozen=True)
class Start:
    """Where a run begins; made before any image is read."""

    config: TrainConfig  # only fields that depend on the number of images are left open
    sizes: Sizes
    pretrained: models.Pretrained | None = None
    states: States | None = None  # the states of the run that is resumed
    record: Record | None = None

    @property
    def step(self) -> int:
        """How many steps are done already."""
        return self.states.step if self.states else 0

    def model(self, num_classes: int) -> nn.Module:
        """The network; raises ConfigError if the run began with another number of classes."""
        if self.record and (before := self.record.contents().num_classes) != num_classes:
            raise ConfigError(f"data: the run began with {before} classes, not {num_classes}")
        try:
            return models.build(
                self.sizes,
                num_classes,
                self.config.precision,
                dropout=self.config.dropout,
                stochastic_depth=self.config.stochastic_depth,
            )
        except ValueError as error:
            raise ConfigError(str(error)) from None

    def variables(
        self,
        model: nn.Module,
        num_classes: int,
        optimizer: optax.GradientTransformation,
        layout: Layout,
    ) -> Variables:
        """The variables before the first step of this run, on every device."""
        if self.states and self.record:
            return self.states.restore(optimizer, self.record, layout)
        if self.pretrained:
            params = resolution.with_new_head(self.pretrained, num_classes).params
        else:
            params = models.init(model, jax.random.key(self.config.seed), self.config.image_size)
            params = _first_values(params, self.config)
        return layout.copy(first_variables(params, optimizer, self.config))


def start(config: TrainConfig, states: States | None) -> Start:
    """Find out where the run begins; raises ConfigError or CheckpointError."""
    if states:
        record = states.record()
        sizes = record.contents().sizes
        return Start(go_on(config, record.config), sizes, None, states, record)
    if not config.start_from:
        config = settle(config, config.variant or DEFAULT_VARIANT, 0)
        return Start(config, _as_wished(models.variant(config.variant), config))
    pretrained = models.read(Path(config.start_from))
    variant = models.name_of(pretrained.config)
    if config.variant not in ("", variant):
        raise ConfigError(f"variant: {config.start_from} holds {variant}, not {config.variant}")
    config = settle(config, variant, pretrained.image_size or 0)
    pretrained = resolution.at(pretrained, config.image_size)
    return Start(config, pretrained.config, pretrained)


def _as_wished(sizes: Sizes, config: TrainConfig) -> Sizes:
    """A variant's sizes with the configuration's choices for a ViT; raises ConfigError."""
    if isinstance(sizes, ViTSizes):
        token = sizes.class_token if config.pooling == "auto" else config.pooling == "token"
        width = sizes.hidden_size if config.pre_logits else sizes.representation_size
        return dataclasses.replace(sizes, class_token=token, representation_size=width)
    for field, wanted in (
        ("pooling", config.pooling != "auto"),
        ("positions", config.positions != "learnt"),
        ("pre_logits", config.pre_logits),
    ):
        if wanted:
            raise ConfigError(f"{field}: only a ViT has that choice, not {config.variant}")
    return sizes


def _first_values(params: optax.Params, config: TrainConfig) -> optax.Params:
    """Initial parameters, with the configuration's biases of the head and positions."""

    def value(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        names = [part.key for part in path]
        if names[-1] == "bias" and "head" in names:
            return jnp.full_like(leaf, config.head_bias)
        if names[-1] == "pos_embedding" and config.positions == "sincos":
            side = math.isqrt(leaf.shape[1])
            token = leaf.shape[1] - side * side  # 1 with a class token, whose position is zeros
            grid = sincos_positions(side, leaf.shape[2])
            return jnp.concatenate([jnp.zeros_like(leaf[:, :token]), grid], axis=1)
        return leaf

    return jax.tree_util.tree_map_with_path(value, params)
