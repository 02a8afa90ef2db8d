"""Steps of each recipe beside the official code's arithmetic, with gradients by another framework.

The gradients are PyTorch's, in float64, of the networks that are exported, which the golden cases
of the official code hold. The rest of a step is written in NumPy from big_vision (optax.py and
utils.py at 0127fb6) and big_transfer (bit_hyperrule.py and bit_jax/train.py at 140de6e), with their
own numbers and in their order: the decay is outside the peak rate. Augmentation, mixup and
stochastic depth are off: they are luck, and have tests of their own.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from contracts.npz import PublishedArrays, open_npz
from contracts.published import read_contents
from export.models import Network, build
from export.models.convolution import StandardizedConv
from export.models.layers import TokenDense
from export.models.parameters import published_layers
from reference import checkpoint, models
from reference.config import TrainConfig
from reference.optimizer import build_optimizer
from reference.parallel import Layout
from reference.recipes import RECIPES, by_hyperrule
from reference.schedule import learning_rates
from reference.step import Now, first_variables, make_step

GOLDEN = Path(__file__).parents[1] / "golden"
Arrays = dict[str, npt.NDArray[np.float64]]
STEPS = 3
CLEAR = 1e-5  # gradients below it are rounding as much as anything else
POSITIONS = "Transformer/posembed_input/pos_embedding"
IMAGENET = 1_281_167


@dataclasses.dataclass(frozen=True)
class Official:
    """A published configuration, in its own terms."""

    folder: str  # a small network; of its family, where that is part of the arithmetic
    loss: Literal["softmax", "sigmoid"]
    optimizer: Literal["adam", "momentum"]
    rate: float
    wd: float  # outside the rate, inside the schedule
    clip: float
    warmup: int
    decay: Literal["cosine", "linear", "staircase"]
    bfloat16: bool  # what the first moment is kept in


OFFICIAL = {
    "mixer-i1k": Official(
        "mixer_tiny", "sigmoid", "adam", 1e-3, 1e-4, 1.0, 10_000, "linear", False
    ),
    "vit-i1k": Official("vit_tiny_gap", "softmax", "adam", 1e-3, 1e-4, 1.0, 10_000, "cosine", True),
    "augreg": Official(
        "vit_tiny_token_prelogits", "sigmoid", "adam", 1e-3, 1e-4, 1.0, 10_000, "cosine", True
    ),
    "bit-i1k": Official("bit_tiny", "softmax", "momentum", 1.6, 1.6e-3, 1.0, 1000, "cosine", True),
    "bit-hyperrule": Official(
        "mixer_tiny", "softmax", "momentum", 0.003, 0.0, 0.0, 500, "staircase", False
    ),
    "transfer": Official(
        "vit_tiny_token", "softmax", "momentum", 0.01, 0.0, 1.0, 500, "cosine", True
    ),
}


class Official64:
    """A golden network in PyTorch, in float64, as a function of its published arrays."""

    def __init__(self, folder: Path) -> None:
        with open_npz(folder / "checkpoint.npz") as file:
            arrays = PublishedArrays(file)
            found = read_contents(arrays.shapes)
            self.arrays: Arrays = {k: arrays.read(k).astype(np.float64) for k in arrays.shapes}
        with np.load(folder / "case.npz") as case:
            self.images: npt.NDArray[np.uint8] = case["images"]
        size = found.image_size or self.images.shape[1]
        self.classes = found.num_classes
        with torch.device("meta"):
            self.module = build(Network(found.sizes, size, found.num_classes), size)
        self.layers = [(key, layer, name) for key, layer, name, _ in published_layers(self.module)]

    def gradient(
        self, arrays: Arrays, labels: npt.NDArray[np.int32], loss: str
    ) -> tuple[float, Arrays]:
        """Loss and its gradient."""
        leaves = {key: torch.tensor(value, requires_grad=True) for key, value in arrays.items()}
        laid = {
            key.replace("/", "."): as_it_lies(layer, name, leaves[key])
            for key, layer, name in self.layers
        }
        pixels = torch.from_numpy((self.images.astype(np.float64) - 127.5) / 127.5)
        logits = torch.func.functional_call(self.module, laid, (pixels,))
        targets = torch.from_numpy(np.eye(self.classes)[labels])
        if loss == "sigmoid":
            each = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
            value = each.sum(dim=1).mean()
        else:
            value = nn.functional.cross_entropy(logits, targets)
        slopes = torch.autograd.grad(value, list(leaves.values()))
        return value.item(), {key: each.numpy() for key, each in zip(leaves, slopes, strict=True)}


def as_it_lies(layer: nn.Module, name: str, array: Tensor) -> Tensor:
    """A published array as the exported module has it, by operations that have a gradient."""
    if isinstance(layer, StandardizedConv):
        variance, mean = torch.var_mean(array, (0, 1, 2), correction=0)
        return ((array - mean) / (variance + 1e-10).sqrt()).permute(3, 2, 0, 1)
    if isinstance(layer, TokenDense):
        return array.T if name == "kernel" else array[:, None]
    return array.reshape(layer.get_parameter(name).shape)


def multiplier(official: Official, number: int, total: int) -> float:
    """What the peak rate is multiplied by at a step."""
    progress = min(max((number - official.warmup) / (total - official.warmup), 0), 1)
    if official.decay == "cosine":
        factor = 0.5 * (1 + np.cos(np.pi * progress))
    elif official.decay == "linear":
        factor = 1e-5 + (1 - 1e-5) * (1 - progress)
    else:
        factor = 0.1 ** sum(number > drop for drop in (3000, 6000, 9000))
    return float(factor * min(1, number / official.warmup))


class Published:
    """The official update of all parameters, step by step, in float64."""

    def __init__(self, official: Official, arrays: Arrays) -> None:
        self.official, self.count = official, 0
        self.first = {key: np.zeros_like(value) for key, value in arrays.items()}
        self.second = {key: np.zeros_like(value) for key, value in arrays.items()}

    def update(self, arrays: Arrays, gradients: Arrays, now: float) -> Arrays:
        """The parameters after a step, at what the schedule says now."""
        official = self.official
        self.count += 1
        norm = np.sqrt(sum(np.sum(each**2) for each in gradients.values()))
        shrink = official.clip / norm if official.clip and norm > official.clip else 1.0
        after = {}
        for key, array in arrays.items():
            gradient = shrink * gradients[key]
            if official.optimizer == "adam":
                first = 0.9 * self.first[key] + 0.1 * gradient
                self.second[key] = 0.999 * self.second[key] + 0.001 * gradient**2
                deviation = np.sqrt(self.second[key] / (1 - 0.999**self.count))
                direction = first / (1 - 0.9**self.count) / (deviation + 1e-8)
            else:
                direction = first = 0.9 * self.first[key] + gradient
            if official.bfloat16:
                first = first.astype(ml_dtypes.bfloat16).astype(np.float64)
            self.first[key] = first
            step = official.rate * direction
            if key.endswith("/kernel"):
                step = step + official.wd * array
            after[key] = array - now * step
        return after


def configuration(name: str) -> tuple[TrainConfig, npt.NDArray[np.float32]]:
    """A recipe without its luck, and its rates on the data that it is meant for."""
    config = RECIPES[name].config
    images = 50_000 if name in {"bit-hyperrule", "transfer"} else IMAGENET
    config = by_hyperrule(config, images, 32 * 32)
    rates = learning_rates(config, (images - (config.validation or 0)) // config.batch_size)
    off: dict[str, Any] = {"mixup": 0.0, "flip": False, "crop_padding": 0, "stochastic_depth": 0.0}
    return dataclasses.replace(config, **off), rates


def ours(
    config: TrainConfig, folder: Path, labels: npt.NDArray[np.int32], steps: list[Now]
) -> Iterator[tuple[float, Arrays]]:
    """Loss and parameters after each step of the trainer."""
    pretrained = models.read(folder / "checkpoint.npz")
    with np.load(folder / "case.npz") as case:
        images = case["images"]
    model = models.build(pretrained.config, pretrained.num_classes)
    rule, layout = build_optimizer(config), Layout.over(jax.devices()[:1])
    step = make_step(model, pretrained.num_classes, rule, config, layout)
    variables = layout.copy(first_variables(pretrained.params, rule, config))
    for now in steps:
        variables, measured = step(variables, now, images, labels, {})
        flat = checkpoint.flatten(variables.params)
        yield float(measured.loss), {k: np.asarray(v, np.float64) for k, v in flat.items()}


@pytest.mark.parametrize("name", OFFICIAL)
def test_steps_of_a_recipe_are_the_official_code_s(name: str) -> None:
    official, (config, rates) = OFFICIAL[name], configuration(name)
    folder = GOLDEN / official.folder
    network = Official64(folder)
    labels = np.arange(len(network.images), dtype=np.int32) % network.classes
    numbers = range(official.warmup - 1, official.warmup - 1 + STEPS)  # around the peak
    moments = [Now(np.int32(n), np.uint32(0), rates[n]) for n in numbers]
    before, published = network.arrays, Published(official, network.arrays)
    clear = {key: np.ones(value.shape, bool) for key, value in before.items()}
    for number, (loss, found) in zip(numbers, ours(config, folder, labels, moments), strict=True):
        # Each step begins where the trainer is, so that rounding does not add up.
        expected, gradients = network.gradient(before, labels, official.loss)
        assert loss == pytest.approx(expected, rel=1e-5)
        if config.positions == "sincos":  # which are no parameters there
            gradients[POSITIONS] = np.zeros_like(gradients[POSITIONS])
        right = published.update(before, gradients, multiplier(official, number, len(rates)))
        for key, value in right.items():
            clear[key] &= np.abs(gradients[key]) > CLEAR
            moved = np.abs(value - before[key])[clear[key]].max(initial=0)
            np.testing.assert_allclose(
                found[key][clear[key]],
                value[clear[key]],
                rtol=1e-6,
                # Moments that are rounded the other way differ by one part in 256 each.
                atol=(1e-2 if official.bfloat16 else 1e-3) * moved,
                err_msg=f"{key} at {number}",
            )
        before = found
    assert sum(map(np.sum, clear.values())) > 0.8 * sum(value.size for value in before.values())


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_learning_rate_is_the_official_code_s_at_every_step(name: str) -> None:
    official, (_, rates) = OFFICIAL[name], configuration(name)
    expected = [official.rate * multiplier(official, n, len(rates)) for n in range(len(rates))]
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-7 * official.rate)
