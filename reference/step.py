"""What is compiled: the training step and the forward pass, for one device or many.

In: a network, an optimiser and a `TrainConfig`. Out: functions that XLA has compiled, or can
compile for devices that are not there.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jax.stages import Wrapped

from reference import models
from reference.augment import flip_and_crop, mix, normalise
from reference.config import TrainConfig
from reference.parallel import Layout


class Variables(NamedTuple):
    """What a training step changes."""

    params: optax.Params
    optimizer: optax.OptState
    average: optax.Params  # moving average of the parameters; empty where there is none


# (params, uint8 images [N, H, W, 3], int32 labels [N]) → how many labels were first, in the first 5
Count = Callable[[optax.Params, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def build_optimizer(config: TrainConfig, total_steps: int) -> optax.GradientTransformation:
    """AdamW or Muon behind gradient clipping, warmed up, then on a cosine to zero.

    Muon (arXiv 2502.16982) takes matrices only, with updates as large as AdamW's usually are, so
    that one learning rate does for both. The rest (convolutions, biases, norms) stays with AdamW.
    """
    warmup = max(1, round(total_steps * config.warmup_epochs / config.epochs))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, warmup, max(total_steps, warmup + 1)
    )

    def kernels(params: optax.Params) -> optax.Params:
        return jax.tree.map(lambda value: value.ndim > 1, params)

    if config.optimizer == "muon":
        rule = optax.contrib.muon(
            schedule, weight_decay=config.weight_decay, adam_b2=0.99, consistent_rms=0.2
        )
    else:
        rule = optax.adamw(schedule, b2=0.99, weight_decay=config.weight_decay, mask=kernels)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), rule)


def first_variables(
    params: optax.Params, optimizer: optax.GradientTransformation, config: TrainConfig
) -> Variables:
    """The variables of step 0."""
    average = jax.tree.map(jnp.array, params) if config.ema_decay else {}
    return Variables(params, optimizer.init(params), average)


def make_step(
    model: nn.Module,
    num_classes: int,
    optimizer: optax.GradientTransformation,
    config: TrainConfig,
    layout: Layout,
) -> Wrapped:
    """The training step under `jax.jit`, which takes the place of `variables`.

    (variables, number of the step, uint8 images [N, H, W, 3], int32 labels [N]) →
    (variables, loss). The number decides the augmentation.
    """

    def step(
        variables: Variables, number: jax.Array, images: jax.Array, labels: jax.Array
    ) -> tuple[Variables, jax.Array]:
        params = variables.params
        key = jax.random.fold_in(jax.random.key(config.seed), number)
        inputs = normalise(flip_and_crop(images, key, config.crop_padding))
        targets = optax.smooth_labels(jax.nn.one_hot(labels, num_classes), config.label_smoothing)
        mix_key = jax.random.fold_in(key, 1)
        inputs, targets = mix(inputs, targets, mix_key, config.mixup, config.cutmix)

        def loss(params: optax.Params) -> jax.Array:
            logits = models.apply(model, params, inputs)
            return jnp.mean(optax.softmax_cross_entropy(logits, targets))

        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradients, variables.optimizer, params)
        params = optax.apply_updates(params, updates)
        # The average follows closely at first, or the initial parameters would stay in it for long.
        decay = jnp.minimum(config.ema_decay, (1 + number) / (10 + number))
        average = jax.tree.map(
            lambda old, new: decay * old + (1 - decay) * new,
            variables.average,
            params if config.ema_decay else {},
        )
        return Variables(params, state, average), value

    places = (layout.whole, layout.whole, layout.divided, layout.divided)
    return jax.jit(step, in_shardings=places, out_shardings=layout.whole, donate_argnums=0)


def make_count(model: nn.Module, layout: Layout) -> Count:
    """The compiled evaluation of a batch; rows with label -1 only fill it and are not counted."""

    def count(
        params: optax.Params, images: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        logits = models.apply(model, params, normalise(images))
        _, best = jax.lax.top_k(logits, min(5, logits.shape[-1]))
        hits = best == labels[:, None]
        return jnp.sum(hits[:, 0]), jnp.sum(hits)

    places = (layout.whole, layout.divided, layout.divided)
    return jax.jit(count, in_shardings=places, out_shardings=layout.whole)
