"""export/random_weights.py: seeded, and of a spread that computes."""

import numpy as np
import pytest
import torch

from contracts.published import CheckpointError
from contracts.variants import VARIANTS
from export.random_weights import random_classifier
from tests.export.checkpoints import logits


@pytest.mark.parametrize("variant", ["mixer_s32", "vit_ti16", "bit_r50x1", "mixer_cifar10"])
def test_random_weights_are_seeded_and_alive(variant: str) -> None:
    first = random_classifier(variant, seed=1)
    assert first.random_weights
    assert first.source == first.variant == variant
    assert first.image_size == VARIANTS[variant].image_size
    size = first.image_size
    values = logits(first, size)
    assert 0.1 < values.std() < 3
    assert np.abs(values[0] - values[1]).max() > 0.01  # two images, two answers
    for (name, a), b, c in zip(
        first.module.named_parameters(),
        random_classifier(variant, seed=1).module.parameters(),
        random_classifier(variant, seed=2).module.parameters(),
        strict=True,
    ):
        assert torch.equal(a, b), name
        assert name.endswith(("scale", "gamma")) or not torch.equal(a, c), name


def test_random_weights_of_another_size() -> None:
    classifier = random_classifier("mixer_testing", image_size=64, num_classes=3)
    assert (classifier.image_size, classifier.num_classes) == (64, 3)
    assert logits(classifier, 64).shape == (2, 3)
    with pytest.raises(CheckpointError, match="at least 1 class"):
        random_classifier("mixer_testing", num_classes=0)
    with pytest.raises(CheckpointError, match="unknown model 'mixer'; known: mixer_s32"):
        random_classifier("mixer")
    with pytest.raises(CheckpointError, match="image size 0"):
        random_classifier("bit_testing", image_size=0)
