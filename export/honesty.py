"""Calibration of a model's probabilities: a temperature, and a limit below which it is unsure.

In: a published graph and images that the model was not trained with: images of its own classes, in
folders with the classes' names, and optionally images of other things. Out: probabilities that are
softmax(logits / T), where T is fitted on every second image (Guo et al., "On Calibration of Modern
Neural Networks", ICML 2017), and the expected calibration error before and after on the remaining
images. With images of other things also a score for how unlike the classes an image is: minus the
largest logit (Hendrycks et al., "Scaling Out-of-Distribution Detection", ICML 2022). The score is
published only if it tells the two kinds of images apart.
"""

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from contracts.counting import some_of
from contracts.images.folders import find_classes
from contracts.repository import INPUT, LOGITS, PROBABILITIES
from export.graph import open_graph, save_graph
from export.image_files import find_images, read_image
from export.options import UsageError
from export.parity import Logits, ParityError, Pixels, activated, probe_images
from export.preprocessing import Preprocessing
from export.progress import note, track

BINS = 15  # bins of confidence, as in the paper
LEAST_IMAGES, MOST_IMAGES, LEAST_OTHERS = 100, 10_000, 20
LEAST_AUROC = 0.85
# The share of images of the model's own classes that are called unsure.
UNSURE_SHARE = 0.05
TEMPERATURES = (0.05, 20.0)
Labels = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Unsure:
    """How well the largest logit tells the classes from other things, and the limit it uses."""

    auroc: float
    own: int  # images
    others: int
    below: float


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The fitted temperature, and its effect on images that it was not fitted on."""

    temperature: float
    images: int  # used for the fit; as many other images for the errors
    before: float  # expected calibration error; so is `after`
    after: float
    unsure: Unsure | None

    def parameters(self) -> dict[str, str]:
        """The parameters for config.pbtxt."""
        found = {
            "temperature": f"{self.temperature:.6g}",
            "calibration_images": str(self.images),
            "ece_before": f"{self.before:.4f}",
            "ece_after": f"{self.after:.4f}",
        }
        if self.unsure is not None:
            found |= {
                "unsure_auroc": f"{self.unsure.auroc:.3f}",
                "unsure_images": f"{self.unsure.own} of its classes, {self.unsure.others} others",
            }
            if self.unsure.auroc >= LEAST_AUROC:
                found["unsure_below_logit"] = f"{self.unsure.below:.6g}"
        return found

    def __str__(self) -> str:
        text = (
            f"calibrated with temperature {self.temperature:.3f}: expected calibration error "
            f"{self.before:.2%} before, {self.after:.2%} after, on {self.images} other images"
        )
        if self.unsure is None:
            return text
        told = (
            "and is published" if self.unsure.auroc >= LEAST_AUROC else "too little to be published"
        )
        return (
            f"{text}; the largest logit tells {self.unsure.others} images of other things apart "
            f"with an AUROC of {self.unsure.auroc:.3f}, {told} (from {LEAST_AUROC} on)"
        )


@dataclasses.dataclass(frozen=True)
class HeldBack:
    """uint8 [N, H, W, 3] of the model's classes with their indices [N], and of other things."""

    images: Pixels
    labels: Labels
    others: Pixels | None


def gather(
    folder: Path, others: Path | None, labels: list[str], rule: Preprocessing, image_size: int
) -> HeldBack:
    """Read the images; raises UsageError if a folder is no class, or if images are too few."""
    try:
        tree = find_classes(folder)
    except OSError as error:
        raise UsageError(f"--held-back {folder}: {error.strerror}") from None
    places = {label: index for index, label in enumerate(labels)}
    if unknown := [name for name in tree.classes if name not in places]:
        raise UsageError(
            f"--held-back {folder}: the folder {unknown[0]!r} is no class of the model; its "
            f"classes: {some_of(labels, 10)}"
        )
    classes = [places[tree.classes[label]] for label in tree.labels]
    chosen = _spread(len(tree.files))
    paths = [tree.files[index] for index in chosen]
    images, kept = _read(paths, rule, image_size)
    if len(images) < LEAST_IMAGES:
        raise UsageError(
            f"--held-back {folder}: expected at least {LEAST_IMAGES} images, found {len(images)}"
        )
    found = np.array([classes[chosen[index]] for index in kept], np.int64)
    if empty := [name for name in tree.classes if places[name] not in found]:
        note(f"--held-back {folder}: no image of {some_of(empty, 10)}")
    if others is None:
        return HeldBack(np.stack(images), found, None)
    strange = find_images(others)
    strangers, _ = _read([strange[index] for index in _spread(len(strange))], rule, image_size)
    if len(strangers) < LEAST_OTHERS:
        raise UsageError(
            f"--others {others}: expected at least {LEAST_OTHERS} images, found {len(strangers)}"
        )
    return HeldBack(np.stack(images), found, np.stack(strangers))


def calibrate(model: ir.Model, path: Path, held: HeldBack) -> Calibration:
    """Put a temperature into the graph, and write it to `path` again.

    Raises UsageError for a graph whose probabilities are no softmax of its logits.
    """
    if _softmax(model) is None:
        raise UsageError(
            "--held-back: the model's probabilities are no softmax of its logits, and a "
            "temperature is for that alone"
        )
    logits = _logits(path, held.images)
    temperature = fitted(logits[::2], held.labels[::2])
    rest, right = logits[1::2], held.labels[1::2]
    before, after = (
        calibration_error(activated(rest / np.float32(t), "softmax"), right)
        for t in (1.0, temperature)
    )
    if after > before:
        note(f"temperature {temperature:.3f} makes no better probabilities, so it is left at 1")
        temperature, after = 1.0, before
    insert_temperature(model, temperature)
    save_graph(model, path)
    _check(path, held.images.shape[1], temperature)
    unsure = None
    if held.others is not None:
        own, strange = logits.max(axis=1), _logits(path, held.others).max(axis=1)
        below = float(np.quantile(own, UNSURE_SHARE))
        unsure = Unsure(auroc(own, strange), len(own), len(strange), below)
    return Calibration(temperature, len(logits[::2]), before, after, unsure)


def fitted(logits: Logits, labels: Labels) -> float:
    """The temperature with the least cross-entropy.

    The derivative by 1 / T is the mean of E[z] - z_right. It grows with 1 / T, so its zero is found
    by bisection.
    """
    scores = logits.astype(np.float64)
    right = scores[np.arange(len(scores)), labels]
    low, high = (1 / t for t in reversed(TEMPERATURES))
    for _ in range(60):
        middle = (low + high) / 2
        powers = np.exp(middle * (scores - scores.max(axis=1, keepdims=True)))
        expected = (powers * scores).sum(axis=1) / powers.sum(axis=1)
        if (expected - right).mean() < 0:
            low = middle
        else:
            high = middle
    return 2 / (low + high)


def calibration_error(probabilities: Logits, labels: Labels) -> float:
    """The expected calibration error of float32 [N, K]: |accuracy - confidence|, by 15 bins."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = [abs((correct[bins == each] - confidence[bins == each]).sum()) for each in range(BINS)]
    return float(sum(gaps) / len(labels))


def auroc(own: npt.NDArray[np.floating], others: npt.NDArray[np.floating]) -> float:
    """The share of pairs in which the image of the model's classes has the larger score."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, own, side="left")
    equal = np.searchsorted(ordered, own, side="right") - below
    return float((below + equal / 2).sum() / (len(own) * len(others)))


def insert_temperature(model: ir.Model, temperature: float) -> None:
    """Let the softmax read logits / T; the output `logits` does not change."""
    softmax = _softmax(model)
    if softmax is None or softmax.inputs[0] is None:
        raise ValueError("the probabilities are no softmax of the logits")
    logits = softmax.inputs[0]
    divisor = ir.Value(name="temperature", const_value=ir.tensor(np.float32(temperature)))
    model.graph.register_initializer(divisor)
    node = ir.node("Div", [logits, divisor], name="calibrated")
    node.outputs[0].name = "calibrated"
    node.outputs[0].dtype, node.outputs[0].shape = ir.DataType.FLOAT, logits.shape
    model.graph.insert_before(softmax, [node])
    softmax.replace_input_with(0, node.outputs[0])


def _softmax(model: ir.Model) -> ir.Node | None:
    """The Softmax node that computes the probabilities from the logits; None if there is none."""
    outputs = {value.name: value for value in model.graph.outputs}
    node = outputs[PROBABILITIES].producer()
    if node is None or node.op_type != "Softmax" or node.inputs[0] is not outputs[LOGITS]:
        return None
    return node


def _check(path: Path, image_size: int, temperature: float) -> None:
    """Raises ParityError unless the written graph's probabilities are softmax(logits / T)."""
    images = probe_images(image_size, 5)
    logits, found = open_graph(path).run([LOGITS, PROBABILITIES], {INPUT: images})
    expected = activated(logits / np.float32(temperature), "softmax")
    if not np.abs(found - expected).max() <= 1e-5:
        raise ParityError(f"the graph's probabilities are not those of temperature {temperature}")


def _logits(path: Path, images: Pixels) -> Logits:
    session = open_graph(path)
    step = max(1, 8 * 224 * 224 // (images.shape[1] * images.shape[2]))
    starts = track(range(0, len(images), step), "calibrating")
    parts = [session.run([LOGITS], {INPUT: images[at : at + step]})[0] for at in starts]
    return np.concatenate(parts)


def _spread(count: int) -> list[int]:
    """Evenly spaced indices of at most MOST_IMAGES of `count` images."""
    if not count:
        return []
    return sorted({round(at) for at in np.linspace(0, count - 1, min(count, MOST_IMAGES))})


def _read(
    paths: list[Path], rule: Preprocessing, image_size: int
) -> tuple[list[Pixels], list[int]]:
    """The readable images, and their indices among the paths."""
    images, kept = [], []
    for place, path in enumerate(track(paths, "reading images")):
        image = read_image(path, rule, image_size)
        if image is not None:
            images.append(image)
            kept.append(place)
    return images, kept
