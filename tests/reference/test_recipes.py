"""The published recipes, beside figures from their sources."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from reference.config import TrainConfig
from reference.models import read
from reference.recipes import RECIPES, by_hyperrule
from reference.schedule import learning_rates
from tests.reference.runs import run, write_images

IMAGENET = 1_281_167


def test_a_mixer_on_imagenet_takes_as_many_steps_as_the_paper_s() -> None:
    config = RECIPES["mixer-i1k"].config
    assert config.validation is not None
    rates = learning_rates(config, (IMAGENET - config.validation) // config.batch_size)
    assert len(rates) == pytest.approx(92_900, rel=3e-3)  # big_vision drops no rest
    np.testing.assert_allclose(rates[[0, 5000, 10_000]], [0, 5e-4, 1e-3], rtol=1e-6)
    assert rates[-1] < 3e-8  # linear, to a hundred-thousandth of the peak


@pytest.mark.parametrize(
    ("name", "outside"),
    [("mixer-i1k", 1e-4), ("vit-i1k", 1e-4), ("augreg", 1e-4), ("bit-i1k", 1.6e-3)],
)
def test_weight_decay_is_the_published_one_outside_the_learning_rate(
    name: str, outside: float
) -> None:
    config = RECIPES[name].config
    assert config.weight_decay * config.learning_rate == pytest.approx(outside)


def test_bit_grows_its_learning_rate_with_the_batch() -> None:
    config = RECIPES["bit-i1k"].config
    assert config.learning_rate == 0.1 * config.batch_size / 256


@pytest.mark.parametrize(
    ("images", "area", "length", "sizes", "mixup"),
    [
        (2000, 500 * 375, (500, 100), (512, 480), 0.0),
        (19_999, 32 * 32, (500, 100), (160, 128), 0.0),
        (50_000, 32 * 32, (10_000, 500), (160, 128), 0.1),
        (IMAGENET, 500 * 375, (20_000, 500), (512, 480), 0.1),
    ],
)
def test_hyperrule_goes_by_the_images_there_are(
    images: int, area: int, length: tuple[int, int], sizes: tuple[int, int], mixup: float
) -> None:
    steps, warmup = length
    config = by_hyperrule(RECIPES["bit-hyperrule"].config, images, area)
    assert (config.steps, config.warmup_steps, config.mixup) == (steps, warmup, mixup)
    assert (config.resize, config.image_size) == sizes
    rates = learning_rates(config, per_epoch=1)
    assert rates[warmup] == pytest.approx(0.003)
    assert rates[-1] == pytest.approx(0.003 / 1000, rel=1e-4)
    # What was set stays, and the rest goes with it.
    mine = dataclasses.replace(RECIPES["bit-hyperrule"].config, steps=1000, image_size=64)
    found = by_hyperrule(mine, images, area)
    assert (found.steps, found.image_size) == (1000, 64)
    assert found.resize == 64 * sizes[0] // sizes[1]
    assert by_hyperrule(found, images, area) == found
    assert by_hyperrule(TrainConfig(), images, area) == TrainConfig()


def test_help_shows_a_recipe_s_numbers_and_a_flag_overrides_one() -> None:
    shown = run("train", "--recipe", "bit-i1k", "--help")
    assert shown.returncode == 0, shown.stderr
    assert "(default: 1.6)" in shown.stdout
    assert "bit_r50x1" in shown.stdout
    unknown = run("train", "--recipe", "mixer", "--data", ".", "--out", "x.npz")
    assert unknown.returncode == 2
    assert unknown.stderr.startswith("error: recipe: no 'mixer'; there are mixer-i1k, mixer-i21k")


def test_the_recipe_for_a_gpu_leaves_the_host_nothing_to_augment(tmp_path: Path) -> None:
    config = RECIPES["cifar-gpu"].config
    assert not config.on_images
    assert (config.flip, config.crop_padding, config.mixup, config.cutmix) == (True, 4, 0.2, 0.5)
    # 48,000 images; what is measured comes at the end of every tenth epoch.
    assert config.eval_steps == 10 * (48_000 // config.batch_size)
    images, out = write_images(tmp_path / "images", training=600), tmp_path / "run.npz"
    small = (
        "--variant",
        "mixer_testing",
        "--batch-size",
        "32",
        "--steps",
        "6",
        "--eval-steps",
        "3",
    )
    done = run("train", "--recipe", "cifar-gpu", *small, "--data", images, "--out", out)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in out.with_suffix(".log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "validation_accuracy" in row] == [3, 6]
    assert all(np.isfinite(row["loss"]) for row in rows)
    assert read(out).num_classes == 2
