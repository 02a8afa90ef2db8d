"""reference/settle.py: values that a configuration leaves open, and what no run can mean."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from reference import commands
from reference.config import ConfigError, TrainConfig
from reference.settle import sizes
from tests.reference.runs import (
    run,
    write_images,
)
from tests.reference.small import SMALL

pytestmark = pytest.mark.timeout(400)  # programs are compiled, on however busy a machine


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variant": "mixer_b17"}, "variant: no 'mixer_b17'; did you mean mixer_b16"),
        ({"image_size": 33}, "image_size: 33 is no multiple of the patch size 8"),
        ({"batch_size": 65}, "batch_size: 65 is more than 64 images.* at most 64.* for 64"),
        ({"validation": 80}, "validation: cannot hold back 80 of 80 images; choose at most 79"),
        ({"validation": 80, "batch_size": 75}, "back 80 of 80 .*; batch_size: 75 is more than 72"),
        ({"validation": 0}, "validation: 0 is not above zero; .* hold back 1 image"),
        ({"epochs": 0}, "epochs: 0 is not above zero"),
        ({"learning_rate": -1.0}, "learning_rate: -1.0 is not above zero"),
    ],
)
def test_a_configuration_that_cannot_run_is_refused_by_field(
    images: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    def attempt() -> None:
        commands.train(
            dataclasses.replace(SMALL, **change), data=images, out=tmp_path / "model.npz"
        )

    with pytest.raises(commands.UserError, match=message):
        attempt()
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_do_not_fit_are_refused_before_an_image_is_opened(tmp_path: Path) -> None:
    folder = tmp_path / "train/dark"
    folder.mkdir(parents=True)
    for index in range(48):
        (folder / f"{index}.png").write_text("to open it would be another error")
    flags: list[str | Path] = ["--data", tmp_path, "--out", tmp_path / "model.npz"]
    done = run("train", *flags, "--validation", "2000", "--batch-size", "128")
    assert done.returncode == 2
    summary, error = done.stderr.splitlines()
    assert summary.endswith("48 images of 1 class: dark (48)")
    assert error == (
        "error: validation: cannot hold back 2000 of 48 images; choose at most 47, or leave it "
        "out for 4; batch_size: 128 is more than 44 images, which are left to train on; choose "
        "at most 44, or leave it out for 32"
    )


@pytest.mark.parametrize(
    ("images", "devices", "expected"),
    [
        (50_000, 1, (2000, 128)),
        (50_000, 8, (2000, 128)),
        (50_000, 256, (2000, 256)),
        (300, 1, (30, 128)),
        (48, 1, (4, 32)),
        (48, 8, (4, 32)),
        (48, 3, (4, 24)),
        (9, 8, (1, 8)),
        (2, 1, (1, 1)),
    ],
)
def test_what_is_left_out_fits_the_images_and_the_devices(
    images: int, devices: int, expected: tuple[int, int]
) -> None:
    assert sizes(TrainConfig(), images, devices) == expected
    with pytest.raises(ConfigError, match=f"data: {devices} training images? (is|are) too few"):
        sizes(TrainConfig(), devices, devices)


def test_a_small_folder_trains_without_any_numbers_and_resumes_with_those_it_had(
    tmp_path: Path,
) -> None:
    images, out = write_images(tmp_path / "pets", training=24), tmp_path / "model.npz"
    (images / "train/dark/0.png").write_text("47 are left")
    flags: list[str | Path] = ["--variant", "mixer_testing", "--epochs", "1", "--data", images]
    done = run("train", *flags, "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("on 4 held-back training images\n")
    config = json.loads(out.with_suffix(".json").read_text())
    assert (config["validation"], config["batch_size"]) == (4, 32)
    write_images(tmp_path / "more", training=100)
    flags[-1] = tmp_path / "more"  # would have more of both now
    again = run("train", *flags, "--out", out, "--resume")
    assert again.returncode == 0, again.stderr
    assert json.loads(out.with_suffix(".json").read_text()) == config
    other = run("train", *flags, "--out", out, "--resume", "--batch-size", "16")
    assert "error: batch_size: this run was started with 32, not 16" in other.stderr
