"""Data parallelism: the same curve on one device, on eight, and on eight in two processes."""

import signal
import socket
from pathlib import Path

import numpy as np
import pytest

from tests.reference.runs import arrays, curve, finish, run, saved_step, start
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(600)  # programs are compiled, on however busy a machine
# An epoch is one step here, so the curve has the loss of every step.
STEPS = 20
FLAGS = ["--variant", "mixer_testing", "--batch-size", "64", "--validation", "16"]
FLAGS += ["--epochs", str(STEPS), "--mixup", "0.2", "--cutmix", "1", "--ema-decay", "0.9"]


@pytest.fixture(scope="module")
def one_device(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("one") / "model.npz"
    done = run("train", *FLAGS, "--data", images, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def assert_same_curve(found: Path, expected: Path) -> None:
    steps, losses = zip(*curve(found), strict=True)
    expected_steps, expected_losses = zip(*curve(expected), strict=True)
    assert steps == expected_steps == tuple(range(1, STEPS + 1))
    assert losses[-1] < losses[0]
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)


def test_eight_devices_draw_the_curve_of_one(
    images: Path, one_device: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model.npz"
    done = run("train", *FLAGS, "--data", images, "--out", out, devices=8)
    assert done.returncode == 0, done.stderr
    assert_same_curve(out, one_device)


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def test_when_one_of_two_processes_is_told_to_stop_both_save_and_stop_at_the_same_step(
    images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model.npz"
    flags: list[str | Path] = ["train", "--variant", "mixer_testing", "--batch-size", "8"]
    flags += ["--validation", "16", "--epochs", "2000", "--data", images, "--out", out]
    flags += ["--coordinator", free_address(), "--processes", "2", "--process"]
    both = [start(*flags, str(process)) for process in range(2)]

    def has_begun() -> bool:
        assert all(process.poll() is None for process in both)
        return bool(curve(out))

    wait_for(has_begun, 200, "the first epoch")
    both[1].send_signal(signal.SIGTERM)
    last = []
    for process in both:
        done = finish(process)
        assert done.returncode == 128 + signal.SIGTERM, done.stderr
        lines = [line for line in done.stderr.splitlines() if line.startswith("stopped after")]
        assert len(lines) == 1, done.stderr
        last += lines
    assert (
        last[0]
        == last[1]
        == f"stopped after step {saved_step(out)}, which is saved: go on " + ("with --resume")
    )


def test_two_processes_with_four_devices_each_draw_the_curve_of_one(
    images: Path, one_device: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model.npz"
    together = ["--coordinator", free_address(), "--processes", "2", "--process"]
    flags: list[str | Path] = ["train", *FLAGS, "--data", images, "--out", out]
    flags += ["--memory-gib", "0"]  # so that an image is decoded each time that it is needed
    both = [start(*flags, *together, str(process), devices=4) for process in range(2)]
    for index, process in enumerate(both):
        done = finish(process)
        assert done.returncode == 0, done.stderr
        # Half of the 64 that are trained on, and half of the 16 held back, once an epoch.
        decoded = f"process {index} of 2 decoded "
        assert f"{decoded}{STEPS * 32} training images" in done.stderr
        assert f"{decoded}{STEPS * 8} held-back images" in done.stderr
    assert_same_curve(out, one_device)
    assert arrays(out).keys() == arrays(one_device).keys()


def test_a_batch_that_cannot_be_divided_is_refused(images: Path, tmp_path: Path) -> None:
    flags = ["--variant", "mixer_testing", "--batch-size", "12", "--validation", "16"]
    done = run("train", *flags, "--data", images, "--out", tmp_path / "model.npz", devices=8)
    assert done.returncode == 2
    assert "error: batch_size: 12 cannot be divided among 8 devices" in done.stderr
