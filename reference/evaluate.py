"""Accuracy of a network on images with known classes.

In: parameters and a `Dataset`. Out: top-1 and top-5 accuracy. Works on all devices of a run; each
process reads its share of every batch.
"""

import dataclasses
import math
from pathlib import Path

import jax
import numpy as np
import optax

from reference import data, models, pipeline
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
    devices = layout.mesh.size
    batch_size = devices * math.ceil(min(EVALUATION_BATCH, len(dataset)) / devices)
    share = batch_size // jax.process_count()
    start = jax.process_index() * share
    top1 = top5 = 0
    for images, labels in pipeline.in_order(dataset, batch_size, workers):
        fill = batch_size - len(labels)
        rows = slice(start, start + share)
        own_images = np.pad(images, ((0, fill), (0, 0), (0, 0), (0, 0)))[rows]
        own_labels = np.pad(labels, (0, fill), constant_values=-1)[rows]
        first, among_five = count(params, layout.divide(own_images), layout.divide(own_labels))
        top1, top5 = top1 + int(first), top5 + int(among_five)
    return Accuracy(top1 / len(dataset), top5 / len(dataset), len(dataset))


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
