"""The parity gate: the exported graph must compute what the PyTorch module computes.

In: a module and its `model.onnx`. Out: the largest difference of a logit, over batch sizes that
were not traced, on photo-like images and on noise; or `ParityError`.
"""

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from contracts.repository import INPUT, LOGITS, PROBABILITIES
from export.classifier import Classifier
from export.graph import TRACED_BATCH, WholeClassifier
from export.preprocessing import Activation

Pixels = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]

# Two correct float32 implementations differ by rounding alone, which grows with the logits. So the
# bounds are per unit of the largest logit, and absolute where no logit exceeds 1. A BiT has larger
# rounding errors: it normalises many thousand values before each of its 50 or more convolutions.
TOLERANCES = {"mixer": 2e-5, "vit": 2e-5, "bit": 2e-4}
BATCH_SIZES = (1, 3, 5)


class ParityError(Exception):
    """The exported graph computes something else; the message says what and by how much."""


def check_parity(classifier: Classifier, session: onnxruntime.InferenceSession) -> float:
    """The largest absolute difference of a logit; raises ParityError above the tolerance."""
    assert TRACED_BATCH not in BATCH_SIZES  # noqa: S101 - the traced batch size must not be tested
    images = probe_images(classifier.image_size, max(BATCH_SIZES))
    expected = torch_logits(classifier, images)
    tolerance = TOLERANCES[classifier.family] * max(1.0, float(np.abs(expected).max()))
    worst = 0.0
    for batch in BATCH_SIZES:
        logits, probabilities = session.run([LOGITS, PROBABILITIES], {INPUT: images[-batch:]})
        if logits.shape != expected[-batch:].shape:
            raise ParityError(
                f"the graph answers a batch of {batch} with shape {logits.shape}, "
                f"expected {expected[-batch:].shape}"
            )
        difference = float(np.abs(logits - expected[-batch:]).max())
        if not difference <= tolerance:  # so that NaN fails too
            raise ParityError(
                f"the graph's logits differ from PyTorch's by {difference:.2g} at batch size "
                f"{batch}, allowed is {tolerance:.2g}; nothing was published"
            )
        if not np.abs(probabilities - activated(logits, classifier.activation)).max() <= 1e-5:
            raise ParityError(
                f"the graph's probabilities at batch size {batch} are no {classifier.activation}"
            )
        worst = max(worst, difference)
    return worst


def torch_logits(classifier: Classifier, images: Pixels) -> Logits:
    """The logits that PyTorch computes for uint8 [N, H, W, 3]: float32 [N, K]."""
    with torch.inference_mode():
        logits, _ = WholeClassifier(classifier)(torch.from_numpy(images))
    array: Logits = logits.numpy()
    return array


def activated(logits: Logits, activation: Activation) -> Logits:
    """Probabilities: a softmax along the last axis, or a sigmoid of each, in float64."""
    if activation == "sigmoid":
        probabilities: Logits = (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)
        return probabilities
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    result: Logits = (exponentials / exponentials.sum(axis=-1, keepdims=True)).astype(np.float32)
    return result


def probe_images(size: int, count: int = 32) -> Pixels:
    """Seeded images, uint8 [count, size, size, 3]: uniform noise first, then photo-like ones.

    Photographs have most of their energy in low frequencies: amplitudes fall with 1/f.
    """
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    frequency[0, 0] = np.inf
    white = random.standard_normal((count - 1, 3, size, size))
    smooth = np.fft.irfft2(np.fft.rfft2(white) / frequency, s=(size, size))
    smooth /= smooth.std(axis=(2, 3), keepdims=True)
    brightness = random.uniform(80, 176, (count - 1, 3, 1, 1))
    photos = np.clip(brightness + 50 * smooth, 0, 255).astype(np.uint8)
    return np.concatenate([noise, photos.transpose(0, 2, 3, 1)])
