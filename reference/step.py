"""The compiled functions: the training step and the forward pass, for one device or many.

In: a network, an optimiser and a `TrainConfig`. Out: functions that XLA has compiled, or can
compile for devices that this machine does not have.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.stages import Wrapped

from reference import losses, models
from reference.augment import flip_and_crop, mix, normalise
from reference.config import TrainConfig
from reference.parallel import Layout
from reference.teacher import Teacher


class Variables(NamedTuple):
    """The values that a training step changes."""

    params: optax.Params
    optimizer: optax.OptState
    average: optax.Params  # moving average of the parameters; empty if it is turned off


class Now(NamedTuple):
    """The values that differ between steps and seeds; all of them use the same program."""

    # NumPy scalars, equal in every process; during tracing they are scalars of JAX.
    number: Any  # int32, the number of the step, from 0
    seed: Any  # uint32
    rate: Any  # float32, the learning rate


class Measured(NamedTuple):
    """The measurements of a training step; float32 scalars."""

    loss: jax.Array
    gradient_norm: jax.Array  # before clipping


# (params, uint8 images [N, H, W, 3], int32 labels [N]) → how many labels were first, in the first 5
Count = Callable[[optax.Params, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


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
    *,
    teacher: Teacher | None = None,
) -> Wrapped:
    """The training step under `jax.jit`, which reuses the memory of `variables`.

    (variables, Now, uint8 images [N, H, W, 3], int32 labels [N], parameters of the teacher or {}) →
    (variables, Measured). Seed and number decide the augmentation.
    """

    def loss(
        params: optax.Params, inputs: jax.Array, targets: jax.Array, key: jax.Array
    ) -> jax.Array:
        logits = models.apply(model, params, inputs, key)
        if teacher is not None:
            return losses.distillation(logits, targets, config.temperature)
        return losses.LOSSES[config.loss](logits, targets)

    def step(
        variables: Variables,
        now: Now,
        images: jax.Array,
        labels: jax.Array,
        teacher_params: optax.Params,
    ) -> tuple[Variables, Measured]:
        params = variables.params
        key = jax.random.fold_in(jax.random.key(now.seed), now.number)
        inputs = normalise(flip_and_crop(images, key, config.crop_padding, flip=config.flip))
        smoothing = config.label_smoothing or 0.0
        targets = optax.smooth_labels(jax.nn.one_hot(labels, num_classes), smoothing)
        mix_key = jax.random.fold_in(key, 1)
        inputs, targets = mix(inputs, targets, mix_key, config.mixup, config.cutmix)
        if teacher is not None:  # the teacher gets the same images as the student
            targets = teacher.logits(teacher_params, inputs)
        batch = (inputs, targets, jax.random.fold_in(key, 2))
        measured, gradients = _gradients(loss, params, batch, config.accumulate)
        if config.positions == "sincos":
            gradients = _without_positions(gradients)
        updates, state = optimizer.update(gradients, variables.optimizer, params)
        downhill = jax.tree.map(lambda update: -now.rate * update, updates)
        params = optax.apply_updates(params, downhill)
        # At first the average follows the parameters closely. Otherwise it would contain the
        # initial parameters for a long time.
        decay = jnp.minimum(config.ema_decay, (1 + now.number) / (10 + now.number))
        average = jax.tree.map(
            lambda old, new: decay * old + (1 - decay) * new,
            variables.average,
            params if config.ema_decay else {},
        )
        return Variables(params, state, average), Measured(measured, optax.tree.norm(gradients))

    places = (layout.whole, layout.whole, layout.divided, layout.divided, layout.whole)
    return jax.jit(step, in_shardings=places, out_shardings=layout.whole, donate_argnums=0)


def _gradients(
    loss: Callable[..., jax.Array],
    params: optax.Params,
    batch: tuple[jax.Array, jax.Array, jax.Array],
    parts: int,
) -> tuple[jax.Array, optax.Params]:
    """Loss and gradients, means over the batch, computed in `parts` parts one after the other."""
    if parts == 1:
        return jax.value_and_grad(loss)(params, *batch)
    inputs, targets, key = batch

    def apart(rows: jax.Array) -> jax.Array:
        # A part has every parts-th row, so that it is divided among the devices as the batch is.
        return jnp.moveaxis(rows.reshape(-1, parts, *rows.shape[1:]), 1, 0)

    def add(
        total: tuple[jax.Array, optax.Params], part: tuple[jax.Array, ...]
    ) -> tuple[tuple[jax.Array, optax.Params], None]:
        found = jax.value_and_grad(loss)(params, *part)
        return jax.tree.map(jnp.add, total, found), None

    zeros = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
    keys = jax.random.split(key, parts)
    total, _ = jax.lax.scan(add, zeros, (apart(inputs), apart(targets), keys))
    value, gradients = jax.tree.map(lambda sums: sums / parts, total)
    return value, gradients


def _without_positions(gradients: optax.Params) -> optax.Params:
    """The gradients with zeros for a ViT's positions, which must not change."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * (path[-1].key != "pos_embedding"), gradients
    )


def make_count(model: nn.Module, layout: Layout) -> Count:
    """The compiled evaluation of a batch; rows with label -1 are padding and are not counted."""

    def count(
        params: optax.Params, images: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        logits = models.apply(model, params, normalise(images))
        _, best = jax.lax.top_k(logits, min(5, logits.shape[-1]))
        hits = best == labels[:, None]
        return jnp.sum(hits[:, 0]), jnp.sum(hits)

    places = (layout.whole, layout.divided, layout.divided)
    return jax.jit(count, in_shardings=places, out_shardings=layout.whole)
