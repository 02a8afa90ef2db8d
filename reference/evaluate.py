"""Accuracy of a network on images with known classes.

In: parameters and a `Dataset`. Out: top-1 and top-5 accuracy. Works on all devices of a run; each
process reads its share of every batch.
"""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import numpy.typing as npt
import optax

from reference import data, models, pipeline
from reference.augment import normalise
from reference.parallel import Layout
from reference.step import Count, make_count

EVALUATION_BATCH = 512


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Shares, 0 to 1."""

    top1: float
    top5: float
    images: int


def evaluate(
    count: Count, layout: Layout, params: optax.Params, dataset: data.Dataset, workers: int = 0
) -> Accuracy:
    """Count how often the label is the network's first answer, and among its first five."""
    top1 = top5 = 0
    for images, labels in _filled(dataset, _batch_size(dataset, layout), workers):
        first, among_five = count(params, layout.divide(images), layout.divide(labels))
        top1, top5 = top1 + int(first), top5 + int(among_five)
    return Accuracy(top1 / len(dataset), top5 / len(dataset), len(dataset))


def answers(
    model: nn.Module, layout: Layout, params: optax.Params, dataset: data.Dataset, workers: int = 0
) -> npt.NDArray[np.float32]:
    """The network's probabilities (softmax) for every image in order, float32 [N, K]."""

    def forward(params: optax.Params, images: jax.Array) -> jax.Array:
        return jax.nn.softmax(models.apply(model, params, normalise(images)))

    places = (layout.whole, layout.divided)
    run = jax.jit(forward, in_shardings=places, out_shardings=layout.whole)
    batch_size = _batch_size(dataset, layout)
    found = [
        np.asarray(run(params, layout.divide(images)))
        for images, _ in _filled(dataset, batch_size, workers)
    ]
    return np.concatenate(found)[: len(dataset)]


def _batch_size(dataset: data.Dataset, layout: Layout) -> int:
    devices = layout.mesh.size
    return devices * math.ceil(min(EVALUATION_BATCH, len(dataset)) / devices)


def _filled(dataset: data.Dataset, batch_size: int, workers: int) -> Iterator[pipeline.Batch]:
    """This process's share of every batch, the last one filled up with rows of label -1."""
    processes = jax.process_count()
    share = batch_size // processes
    batches = pipeline.in_order(dataset, batch_size, workers, jax.process_index(), processes)
    for images, labels in batches:
        fill = share - len(labels)
        filled = np.pad(images, ((0, fill), (0, 0), (0, 0), (0, 0)))
        yield filled, np.pad(labels, (0, fill), constant_values=-1)


def evaluate_file(
    path: Path, source: Path, split: str, image_size: int | None, memory_gib: float = 4.0
) -> Accuracy:
    """Evaluate a checkpoint of any family on a folder tree or on CIFAR-10's archive.

    Raises CheckpointError or DataError, also where the classes are not as many as the network's.
    """
    pretrained = models.read(path)
    size = image_size or pretrained.image_size or 224
    if pretrained.image_size not in (None, size):
        raise data.DataError(
            f"image size {size}: {path} was trained at {pretrained.image_size}; fine-tune it first"
        )
    dataset = data.load(source, split, size, memory_gib=memory_gib)
    if len(dataset.classes) != pretrained.num_classes:
        raise data.DataError(
            f"{source}: has {len(dataset.classes)} classes, {path} has {pretrained.num_classes}"
        )
    layout = Layout.over(jax.devices())
    count = make_count(models.build(pretrained.config, pretrained.num_classes), layout)
    return evaluate(count, layout, layout.copy(pretrained.params), dataset)
