"""Accuracy of a network on images with known classes.

In: parameters and a `Dataset`. Out: top-1 and top-5 accuracy. Works on all devices of a run; each
process reads its share of every batch.
"""

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import numpy.typing as npt
import optax

from contracts.published import CheckpointError
from contracts.resizing import ResizeRule
from reference import data, models, pipeline, resolution
from reference.augment import normalise
from reference.parallel import Layout
from reference.scores import Scores, scores
from reference.step import Count

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
    model: nn.Module,
    layout: Layout,
    params: optax.Params,
    dataset: data.Dataset,
    *,
    softmax: bool = True,
) -> npt.NDArray[np.float32]:
    """The network's probabilities, or its logits, for every image in order, float32 [N, K]."""

    def forward(params: optax.Params, images: jax.Array) -> jax.Array:
        logits = models.apply(model, params, normalise(images))
        return jax.nn.softmax(logits) if softmax else logits

    places = (layout.whole, layout.divided)
    run = jax.jit(forward, in_shardings=places, out_shardings=layout.whole)
    batch_size = _batch_size(dataset, layout)
    found = [
        np.asarray(run(params, layout.divide(images)))
        for images, _ in _filled(dataset, batch_size, 0)
    ]
    return np.concatenate(found)[: len(dataset)]


def _batch_size(dataset: data.Dataset, layout: Layout) -> int:
    devices = layout.mesh.size
    return devices * math.ceil(min(EVALUATION_BATCH, len(dataset)) / devices)


def _filled(dataset: data.Dataset, batch_size: int, workers: int) -> Iterator[pipeline.Batch]:
    """This process's share of every batch; the last batch is padded with rows of label -1."""
    processes = jax.process_count()
    share = batch_size // processes
    batches = pipeline.in_order(dataset, batch_size, workers, jax.process_index(), processes)
    for images, labels in batches:
        fill = share - len(labels)
        filled = np.pad(images, ((0, fill), (0, 0), (0, 0), (0, 0)))
        yield filled, np.pad(labels, (0, fill), constant_values=-1)


@dataclasses.dataclass(frozen=True)
class Network:
    """A network read from a checkpoint, ready to answer, with its rule for resizing images."""

    pretrained: models.Pretrained
    rule: ResizeRule
    path: Path

    def probabilities(self, dataset: data.Dataset) -> npt.NDArray[np.float32]:
        """The probabilities of every image in order, float32 [N, K]."""
        layout = Layout.over(jax.devices())
        model = models.build(self.pretrained.config, self.pretrained.num_classes)
        return answers(model, layout, layout.copy(self.pretrained.params), dataset)

    def features(self, dataset: data.Dataset) -> npt.NDArray[np.float32]:
        """The inputs of the head for every image in order, float32 [N, D]."""
        headless = resolution.without_head(self.pretrained)
        layout = Layout.over(jax.devices())
        model = models.build(headless.config, headless.num_classes)
        params = layout.copy(headless.params)
        return answers(model, layout, params, dataset, softmax=False)

    def load(self, source: Path, split: str, memory_gib: float = 4.0) -> data.Dataset:
        """The images of a split, resized by the network's rule."""
        size = self.rule.height
        return data.load(source, split, size, rule=self.rule, memory_gib=memory_gib)


def open_network(
    path: Path,
    image_size: int | None = None,
    resize: str | None = None,
    crop_fraction: float | None = None,
) -> Network:
    """Read a checkpoint of any family; raises CheckpointError or DataError.

    A part of the resize rule that is not given is taken from the configuration of the training run,
    which lies beside the checkpoint. Without a configuration, images are resized straight to a
    square.
    """
    pretrained = models.read(path)
    size = image_size or pretrained.image_size or record_beside(path).get("image_size") or 224
    if pretrained.image_size not in (None, size):
        raise data.DataError(
            f"image size {size}: {path} was trained at {pretrained.image_size}; fine-tune it first"
        )
    own = record_beside(path)
    rule = ResizeRule(
        size,
        size,
        resize=resize or own.get("eval_resize", "squash"),
        crop_fraction=crop_fraction or own.get("eval_crop_fraction", 1.0),
    )
    return Network(pretrained, rule, path)


def evaluate_file(network: Network, source: Path, split: str) -> Scores:
    """Measure a network on the images of a split.

    Raises DataError, also if the number of classes is not that of the network.
    """
    dataset = network.load(source, split)
    if len(dataset.classes) != network.pretrained.num_classes:
        raise data.DataError(
            f"{source}: has {len(dataset.classes)} classes, {network.path} has "
            f"{network.pretrained.num_classes}"
        )
    return scores(network.probabilities(dataset), dataset.labels)


def record_beside(path: Path) -> dict[str, Any]:
    """The configuration of the run that wrote a checkpoint; {} if there is none.

    Raises CheckpointError if there is one that cannot be used: without it images would be resized
    by another rule, and the accuracy would be another.
    """
    file = path.with_suffix(".json")
    wanted = f"{file}: expected the configuration of a training run, a JSON object"
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{wanted}, found {error}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{wanted}, found {str(found)[:60]!r}")
    return found
