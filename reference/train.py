"""Training a Mixer from scratch.

In: pictures (see `reference.data`) and a `TrainConfig`. Out, beside each other: `NAME.npz`, the
parameters in the published format; `NAME.state.npz`, all that is needed to go on; `NAME.json`, the
configuration; `NAME.log.jsonl`, the loss curve; `NAME.labels.txt`, the classes. Every step depends
on its number and the seed alone, so a run that was stopped and resumed ends in the same parameters.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax

from reference import checkpoint, data
from reference.augment import flip_and_crop, normalise
from reference.config import ConfigError, TrainConfig
from reference.curve import Curve
from reference.mixer import VARIANTS, MlpMixer
from reference.state import State

EVALUATION_BATCH = 500

Step = Callable[
    [optax.Params, optax.OptState, int, npt.NDArray[np.uint8], npt.NDArray[np.int32]],
    tuple[optax.Params, optax.OptState, jax.Array],
]
Predict = Callable[[optax.Params, npt.NDArray[np.uint8]], jax.Array]


def build_model(config: TrainConfig, num_classes: int) -> MlpMixer:
    """The network that `config` names; raises ConfigError where the sizes do not fit."""
    if config.variant not in VARIANTS:
        raise ConfigError(f"variant: no {config.variant!r}; there are {', '.join(VARIANTS)}")
    sizes = VARIANTS[config.variant]
    if config.image_size % sizes.patch_size:
        raise ConfigError(
            f"image_size: {config.image_size} is no multiple of the patch size {sizes.patch_size}"
        )
    return MlpMixer(sizes, num_classes)


def build_optimizer(config: TrainConfig, total_steps: int) -> optax.GradientTransformation:
    """AdamW behind gradient clipping, warmed up, then on a cosine to zero."""
    warmup = max(1, round(total_steps * config.warmup_epochs / config.epochs))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, warmup, max(total_steps, warmup + 1)
    )

    def kernels(params: optax.Params) -> optax.Params:
        return jax.tree.map(lambda value: value.ndim > 1, params)

    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(schedule, b2=0.99, weight_decay=config.weight_decay, mask=kernels),
    )


def batches(
    dataset: data.Dataset, config: TrainConfig, first_step: int
) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]]:
    """Batches from `first_step` on, in an order that the seed and the epoch alone decide.

    The pictures that do not fill an epoch's last batch are left out of that epoch.
    """
    per_epoch = len(dataset) // config.batch_size
    for epoch in range(first_step // per_epoch, config.epochs):
        order = np.random.default_rng((config.seed, epoch)).permutation(len(dataset))
        start = first_step % per_epoch if epoch == first_step // per_epoch else 0
        for index in range(start, per_epoch):
            rows = order[index * config.batch_size : (index + 1) * config.batch_size]
            yield dataset.images[rows], dataset.labels[rows]


def make_step(
    model: MlpMixer, optimizer: optax.GradientTransformation, config: TrainConfig
) -> Step:
    """The compiled training step: (params, optimizer state, step, images, labels) → the same, loss.

    The step number decides the augmentation.
    """

    def step(
        params: optax.Params,
        state: optax.OptState,
        number: jax.Array,
        images: jax.Array,
        labels: jax.Array,
    ) -> tuple[optax.Params, optax.OptState, jax.Array]:
        key = jax.random.fold_in(jax.random.key(config.seed), number)
        inputs = normalise(flip_and_crop(images, key, config.crop_padding))
        targets = optax.smooth_labels(
            jax.nn.one_hot(labels, model.num_classes), config.label_smoothing
        )

        def loss(params: optax.Params) -> jax.Array:
            logits = logits_of(model, params, inputs)
            return jnp.mean(optax.softmax_cross_entropy(logits, targets))

        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    return jax.jit(step, donate_argnums=(0, 1))


def logits_of(model: MlpMixer, params: optax.Params, inputs: jax.Array) -> jax.Array:
    """The forward pass: float32 images [N, H, W, 3] in [-1, 1] to float32 logits [N, K]."""
    return cast("jax.Array", model.apply({"params": params}, inputs))


def make_predict(model: MlpMixer) -> Predict:
    """The compiled classifier: (params, uint8 images [N, H, W, 3]) → class numbers [N]."""

    def predict(params: optax.Params, images: jax.Array) -> jax.Array:
        return jnp.argmax(logits_of(model, params, normalise(images)), axis=-1)

    return jax.jit(predict)


def evaluate(predict: Predict, params: optax.Params, dataset: data.Dataset) -> float:
    """Top-1 accuracy, 0 to 1."""
    correct = 0
    for start in range(0, len(dataset), EVALUATION_BATCH):
        found = predict(params, dataset.images[start : start + EVALUATION_BATCH])
        correct += int(np.sum(found == dataset.labels[start : start + EVALUATION_BATCH]))
    return correct / len(dataset)


def train(
    config: TrainConfig, source: Path, out: Path, *, resume: bool, refuse_broken: bool
) -> float:
    """Run `config` to its end; returns the accuracy on the held-back training pictures.

    Raises ConfigError, data.DataError or checkpoint.CheckpointError before the first step.
    """
    state_file = out.with_suffix(".state.npz")
    if state_file.exists() and not resume:
        raise ConfigError(f"out: {state_file} exists; go on with --resume, or choose another --out")
    if resume and not state_file.exists():
        raise ConfigError(f"resume: there is no {state_file} to go on from")
    everything = data.load(source, "train", config.image_size, refuse_broken=refuse_broken)
    training, held_back = data.split_validation(everything, config.validation, config.seed)
    per_epoch = len(training) // config.batch_size
    if per_epoch == 0:
        raise ConfigError(f"batch_size: {config.batch_size} is more than {len(training)} pictures")
    total_steps = per_epoch * config.epochs
    model = build_model(config, len(training.classes))
    optimizer = build_optimizer(config, total_steps)
    blank = jnp.zeros((1, config.image_size, config.image_size, 3))
    params = model.init(jax.random.key(config.seed), blank)["params"]
    state = State(0, params, optimizer.init(params))
    if resume:
        state = State.load(state_file, config, state.optimizer)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")
    out.with_suffix(".labels.txt").write_text("\n".join(training.classes) + "\n")

    step, predict = make_step(model, optimizer, config), make_predict(model)
    accuracy = evaluate(predict, state.params, held_back) if state.step == total_steps else 0.0
    with Curve(out.with_suffix(".log.jsonl"), state.step, total_steps, config.batch_size) as curve:
        for images, labels in batches(training, config, state.step):
            state.params, state.optimizer, loss = step(
                state.params, state.optimizer, state.step, images, labels
            )
            state.step += 1
            if state.step % per_epoch:
                curve.step(state.step, loss)
                continue
            accuracy = evaluate(predict, state.params, held_back)
            state.save(state_file, config)
            checkpoint.write_arrays(out, checkpoint.flatten(state.params))
            curve.epoch(state.step, loss, state.step // per_epoch, accuracy)
    return accuracy
