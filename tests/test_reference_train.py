"""Training as a user runs it: `python -m reference train` on small folders, stopped and resumed."""

import dataclasses
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reference import commands, models
from reference.config import TrainConfig
from tests.reference_runs import CLASSES, FLAGS, arrays, curve, finish, run, start, write_pictures

pytestmark = pytest.mark.timeout(400)  # programs are compiled, on however busy a machine
SMALL = TrainConfig(variant="mixer_testing", batch_size=8, validation=16)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def unbroken(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a run of 20 epochs that nothing interrupted."""
    out = tmp_path_factory.mktemp("unbroken") / "model.npz"
    done = run("train", *FLAGS, "--epochs", "20", "--data", pictures, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "held-back training pictures" in done.stdout
    return out


def assert_equal_runs(found: Path, expected: Path) -> None:
    one, other = arrays(found), arrays(expected)
    assert one.keys() == other.keys()
    for key, value in other.items():
        np.testing.assert_array_equal(one[key], value, err_msg=key)
    assert dict(curve(found)) == dict(curve(expected))


def kill_when(process: subprocess.Popen[str], condition: Callable[[], object]) -> None:
    """SIGKILL at the moment at which the condition holds."""
    deadline = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < deadline, "nothing to kill came about"
        assert process.poll() is None, "the run ended before it could be killed"
    process.kill()
    finish(process)


def test_a_killed_and_resumed_run_ends_in_the_parameters_of_an_unbroken_one(
    pictures: Path, unbroken: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "model.npz"
    flags: list[str | Path] = [*FLAGS, "--epochs", "20", "--data", pictures, "--out", broken]
    state = broken.with_suffix(".state.npz")
    kill_when(start("train", *flags), lambda: state.exists() and curve(broken))
    assert 0 < len(curve(broken)) < 20
    again = run("train", *flags, "--resume")
    assert again.returncode == 0, again.stderr
    assert_equal_runs(broken, unbroken)


def test_killed_while_a_checkpoint_is_written_a_run_goes_on_from_the_one_before(
    pictures: Path, unbroken: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "model.npz"
    state = broken.with_suffix(".state.npz")
    flags: list[str | Path] = [*FLAGS, "--epochs", "20", "--data", pictures, "--out", broken]

    def writing_the_second() -> bool:
        return state.exists() and any(tmp_path.glob(f".{state.name}.*.tmp"))

    kill_when(start("train", *flags), writing_the_second)
    for _ in range(20):
        if any(tmp_path.glob(f".{state.name}.*.tmp")):
            break
        # The kill came just after the renaming; so once more.
        kill_when(start("train", *flags, "--resume"), writing_the_second)
    else:
        pytest.fail("never killed while the temporary file was there")
    assert int(arrays(state)["step"]) % 8 == 0  # whole, and of an epoch's end
    again = run("train", *flags, "--resume")
    assert again.returncode == 0, again.stderr
    assert not list(tmp_path.glob(".*.tmp")), "what the killed run left behind is still there"
    assert_equal_runs(broken, unbroken)


def test_saved_within_an_epoch_too(pictures: Path, unbroken: Path, tmp_path: Path) -> None:
    broken = tmp_path / "model.npz"
    state = broken.with_suffix(".state.npz")
    flags: list[str | Path] = [*FLAGS, "--epochs", "20", "--data", pictures, "--out", broken]
    often = ("--save-minutes", "0.000001")
    kill_when(start("train", *flags, *often), broken.exists)
    assert int(arrays(state)["step"]) % 8 > 0
    assert models.read(broken).num_classes == 2
    again = run("train", *flags, "--resume")  # and saves as often as usual from now on
    assert again.returncode == 0, again.stderr
    assert_equal_runs(broken, unbroken)


def test_a_trained_checkpoint_has_learnt_and_is_evaluated(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.npz"
    flags = ["--epochs", "8", "--crop-padding", "0", "--learning-rate", "0.01"]
    done = run("train", *FLAGS, *flags, "--data", pictures, "--out", out)
    assert done.returncode == 0, done.stderr
    assert out.with_suffix(".labels.txt").read_text().split() == list(CLASSES)
    assert json.loads(out.with_suffix(".json").read_text())["variant"] == "mixer_testing"
    assert models.read(out).num_classes == 2
    result = run("evaluate", "--checkpoint", out, "--data", pictures)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("top-1 accuracy 100.00%, top-5 100.00%, on 8 pictures")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variant": "mixer_b17"}, "variant: no 'mixer_b17'; did you mean mixer_b16"),
        ({"image_size": 33}, "image_size: 33 is no multiple of the patch size 8"),
        ({"batch_size": 65}, "batch_size: 65 is more than 64 pictures"),
        ({"validation": 80}, "cannot hold back 80 of 80 pictures"),
        ({"epochs": 0}, "epochs: 0 is not above zero"),
        ({"learning_rate": -1.0}, "learning_rate: -1.0 is not above zero"),
    ],
)
def test_a_configuration_that_cannot_run_is_refused_by_field(
    pictures: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    def attempt() -> None:
        commands.train(
            dataclasses.replace(SMALL, **change), data=pictures, out=tmp_path / "model.npz"
        )

    with pytest.raises(commands.UserError, match=message):
        attempt()
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_ends_in_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = run("train", "--data", tmp_path / "nowhere", "--out", tmp_path / "model.npz")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path}/nowhere/train: no such folder; expected")
    assert len(done.stderr.splitlines()) == 1


def test_a_run_in_the_way_is_not_overwritten_nor_resumed_under_another_configuration(
    pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model.npz"
    once = dataclasses.replace(SMALL, epochs=1)
    with pytest.raises(commands.UserError, match="resume: there is no"):
        commands.train(once, data=pictures, out=out, resume=True)
    commands.train(once, data=pictures, out=out)
    before = out.read_bytes()
    with pytest.raises(commands.UserError, match="go on with --resume"):
        commands.train(once, data=pictures, out=out)
    with pytest.raises(commands.UserError, match="epochs: this run was started with 1, not 2"):
        commands.train(dataclasses.replace(SMALL, epochs=2), data=pictures, out=out, resume=True)
    assert out.read_bytes() == before


def test_with_every_augmentation_and_an_average_a_run_resumes_bit_for_bit(
    pictures: Path, tmp_path: Path
) -> None:
    flags: list[str | Path] = [*FLAGS, "--epochs", "4", "--data", pictures, "--ema-decay", "0.9"]
    flags += ["--mixup", "0.2", "--cutmix", "1", "--randaugment-layers", "2", "--optimizer", "muon"]
    flags += ["--min-crop-area", "0.3", "--precision", "bfloat16", "--workers", "2"]
    whole, broken = tmp_path / "whole.npz", tmp_path / "broken.npz"
    done = run("train", *flags, "--out", whole)
    assert done.returncode == 0, done.stderr
    kill_when(start("train", *flags, "--out", broken), broken.exists)
    again = run("train", *flags, "--out", broken, "--resume")
    assert again.returncode == 0, again.stderr
    assert_equal_runs(broken, whole)
    state = arrays(whole.with_suffix(".state.npz"))
    assert np.any(state["params/head/kernel"] != state["average/head/kernel"])
    np.testing.assert_array_equal(arrays(whole)["head/kernel"], state["average/head/kernel"])


def test_fine_tuning_starts_from_a_published_file_at_a_higher_resolution(
    pictures: Path, tmp_path: Path
) -> None:
    golden = Path(__file__).parent / "golden/mixer_tiny/checkpoint.npz"
    out = tmp_path / "tuned.npz"
    flags: list[str | Path] = ["--start-from", golden, "--image-size", "64", "--batch-size", "8"]
    flags += ["--validation", "16", "--epochs", "4", "--learning-rate", "1e-3", "--data", pictures]
    done = run("train", *flags, "--out", out)
    assert done.returncode == 0, done.stderr
    tuned = models.read(out)
    assert (tuned.num_classes, tuned.image_size) == (2, 64)
    assert json.loads(out.with_suffix(".json").read_text())["image_size"] == 64
    # The body is where it came from, but for a few small steps.
    assert (
        np.corrcoef(arrays(golden)["stem/kernel"].ravel(), arrays(out)["stem/kernel"].ravel())[0, 1]
        > 0.9
    )
    result = run("evaluate", "--checkpoint", out, "--data", pictures)
    assert result.stdout.startswith("top-1 accuracy 100.00%"), result.stderr
    again = run("train", *flags, "--out", out, "--resume")  # done already, and says so
    assert again.returncode == 0, again.stderr
