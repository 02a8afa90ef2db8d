"""The small published checkpoints that several tests read."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from export.classifier import Classifier

GOLDEN = Path(__file__).parents[1] / "golden"
MIXER = GOLDEN / "mixer_tiny" / "checkpoint.npz"
VIT = GOLDEN / "vit_tiny_token" / "checkpoint.npz"
BIT = GOLDEN / "bit_tiny" / "checkpoint.npz"
Arrays = dict[str, npt.NDArray[Any]]


def read(path: Path) -> Arrays:
    with np.load(path) as file:
        return dict(file)


def logits(classifier: Classifier, size: int = 32) -> npt.NDArray[np.float32]:
    images = torch.rand(2, size, size, 3, generator=torch.Generator().manual_seed(3)) * 2 - 1
    with torch.no_grad():
        values: npt.NDArray[np.float32] = classifier.module(images).numpy()
    return values
