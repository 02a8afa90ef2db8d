"""A linear probe on a few images of each class: big_vision's `fewshot_lsr`, in closed form.

In: features [N, D] of a frozen network, with labels. Out: accuracy on the test images of a ridge
regression from `shots` images of each class, for each seed. The arithmetic is that of
evaluators/fewshot_lsr.py at 0127fb6 of big_vision: features standardised by the shots' own mean and
deviation (+ 1e-5), a constant feature of 100 appended, targets of −1 and 1, an L2 weight of 1024
for all weights.
"""

import dataclasses

import numpy as np
import numpy.typing as npt

from reference.config import ConfigError

SHOTS, SEEDS = (5, 10), (0, 1, 2)
L2, CONSTANT, EPSILON = 2.0**10, 100.0, 1e-5

Features = npt.NDArray[np.floating]
Labels = npt.NDArray[np.integer]


@dataclasses.dataclass(frozen=True)
class Probe:
    """The accuracies of one number of shots."""

    shots: int
    accuracies: tuple[float, ...]  # by seed

    @property
    def mean(self) -> float:
        """The mean accuracy over the seeds."""
        return float(np.mean(self.accuracies))


def _drawn(labels: Labels, shots: int, seed: int) -> npt.NDArray[np.intp]:
    """The rows of `shots` images of each class."""
    random = np.random.default_rng(seed)
    places = [
        random.permutation(np.flatnonzero(labels == label))[:shots]
        for label in range(int(labels.max()) + 1)
    ]
    return np.concatenate(places)


def candidates(labels: Labels, shots: int, seeds: tuple[int, ...] = SEEDS) -> npt.NDArray[np.intp]:
    """The rows of all training images that a probe may draw, ascending [M].

    They are few, so that their features are computed quickly.
    """
    return np.unique(np.concatenate([_drawn(labels, 2 * shots, seed) for seed in seeds]))


def probe(
    training: tuple[Features, Labels],
    test: tuple[Features, Labels],
    shots: tuple[int, ...] = SHOTS,
    seeds: tuple[int, ...] = SEEDS,
) -> list[Probe]:
    """Fit and test. Raises ConfigError where a class has fewer images than shots."""
    features, labels = training
    classes = int(labels.max()) + 1
    counts = np.bincount(labels, minlength=classes)
    if (fewest := int(counts.min())) < max(shots):
        raise ConfigError(
            f"shots: class {int(counts.argmin())} has {fewest} images for {max(shots)} shots"
        )
    found = []
    for count in shots:
        accuracies = []
        for seed in seeds:
            rows = _drawn(labels, count, seed)
            said = classify(features[rows], labels[rows], test[0], classes)
            accuracies.append(float(np.mean(said == test[1])))
        found.append(Probe(count, tuple(accuracies)))
    return found


def classify(shots: Features, labels: Labels, test: Features, classes: int) -> npt.NDArray[np.intp]:
    """The class that ridge regression gives each row of `test` [M, D], from `shots` [N, D]."""
    mean, deviation = shots.mean(axis=0), shots.std(axis=0) + EPSILON

    def extended(rows: Features) -> npt.NDArray[np.float64]:
        constant = np.full((len(rows), 1), CONSTANT)
        return np.concatenate([(rows - mean) / deviation, constant], axis=1)

    x, targets = extended(shots), 2.0 * np.eye(classes)[labels] - 1
    if len(x) < x.shape[1]:  # solve the smaller of two systems that have the same solution
        weights = x.T @ np.linalg.solve(x @ x.T + L2 * np.eye(len(x)), targets)
    else:
        weights = np.linalg.solve(x.T @ x + L2 * np.eye(x.shape[1]), x.T @ targets)
    best: npt.NDArray[np.intp] = (extended(test) @ weights).argmax(axis=1)
    return best
