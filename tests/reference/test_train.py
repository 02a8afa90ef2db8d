"""Training as a user runs it: `python -m reference train` on small folders, stopped and resumed."""

import dataclasses
import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from reference import checkpoint, commands, models, state
from reference.config import TrainConfig
from reference.evaluate import Accuracy
from reference.optimizer import build_optimizer
from reference.parallel import Layout
from reference.stopping import Stopping
from tests.reference.runs import (
    CLASSES,
    FLAGS,
    arrays,
    curve,
    finish,
    is_saving,
    run,
    saved_step,
    start,
)
from tests.reference.small import SMALL
from tests.waiting import frozen

pytestmark = pytest.mark.timeout(400)  # programs are compiled, on however busy a machine


@pytest.fixture(scope="module")
def unbroken(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a run of 20 epochs that nothing interrupted."""
    out = tmp_path_factory.mktemp("unbroken") / "model.npz"
    done = run("train", *FLAGS, "--epochs", "20", "--data", images, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "held-back training images" in done.stdout
    return out


def assert_equal_runs(found: Path, expected: Path) -> None:
    one, other = arrays(found), arrays(expected)
    assert one.keys() == other.keys()
    for key, value in other.items():
        np.testing.assert_array_equal(one[key], value, err_msg=key)
    assert curve(found) == curve(expected)  # each step once


def stop_when(
    process: subprocess.Popen[str],
    condition: Callable[[], object],
    by: signal.Signals = signal.SIGKILL,
) -> subprocess.CompletedProcess[str]:
    """A signal while the condition holds.

    To be killed, the run is stopped first: the condition may no longer hold when a signal comes.
    """
    deadline = time.monotonic() + 200
    while True:
        while not condition():
            assert time.monotonic() < deadline, "nothing to stop came about"
            assert process.poll() is None, "the run ended before it could be stopped"
            time.sleep(0.001)  # the run needs the core
        if by != signal.SIGKILL:
            process.send_signal(by)
            return finish(process)
        with frozen(process.pid):
            if condition():
                process.kill()
                return finish(process)


def test_a_killed_and_resumed_run_ends_in_the_parameters_of_an_unbroken_one(
    images: Path, unbroken: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "model.npz"
    flags: list[str | Path] = [*FLAGS, "--epochs", "20", "--data", images, "--out", broken]
    stop_when(start("train", *flags), lambda: saved_step(broken) and curve(broken))
    assert 0 < len(curve(broken)) < 20
    again = run("train", *flags, "--resume")
    assert again.returncode == 0, again.stderr
    assert_equal_runs(broken, unbroken)


def test_killed_while_a_checkpoint_is_written_a_run_goes_on_from_the_one_before(
    images: Path, unbroken: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "model.npz"
    flags: list[str | Path] = [*FLAGS, "--epochs", "20", "--data", images, "--out", broken]

    def writing_the_second() -> bool:
        return saved_step(broken) > 0 and is_saving(broken)

    stop_when(start("train", *flags), writing_the_second)
    assert is_saving(broken)
    assert saved_step(broken) % 8 == 0  # whole, and of an epoch's end
    again = run("train", *flags, "--resume")
    assert again.returncode == 0, again.stderr
    assert not list(tmp_path.glob(".*.tmp")), "what the killed run left behind is still there"
    assert not is_saving(broken), "what the killed run left behind is still there"
    assert_equal_runs(broken, unbroken)


def test_saved_within_an_epoch_too(images: Path, unbroken: Path, tmp_path: Path) -> None:
    broken = tmp_path / "model.npz"
    flags: list[str | Path] = [*FLAGS, "--epochs", "20", "--data", images, "--out", broken]
    often = ("--save-minutes", "0.000001")
    stop_when(start("train", *flags, *often), lambda: saved_step(broken) % 8)
    assert saved_step(broken) % 8 > 0
    assert models.read(broken).num_classes == 2
    again = run("train", *flags, "--resume")  # and saves as often as usual from now on
    assert again.returncode == 0, again.stderr
    assert_equal_runs(broken, unbroken)


def test_a_trained_checkpoint_has_learnt_and_is_evaluated(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.npz"
    flags = ["--epochs", "8", "--crop-padding", "0", "--learning-rate", "0.01"]
    done = run("train", *FLAGS, *flags, "--data", images, "--out", out)
    assert done.returncode == 0, done.stderr
    assert out.with_suffix(".labels.txt").read_text().split() == list(CLASSES)
    assert json.loads(out.with_suffix(".json").read_text())["variant"] == "mixer_testing"
    assert models.read(out).num_classes == 2
    result = run("evaluate", "--checkpoint", out, "--data", images)
    assert result.returncode == 0, result.stderr
    first, second = result.stdout.splitlines()
    assert first.startswith("top-1 accuracy 100.00%, top-5 100.00%, on 8 images")
    assert second.startswith("95 % interval of top-1 67.56% to 100.00%; expected calibration error")
    probed = run("few-shot", "--checkpoint", out, "--data", images, "--shots", "5")
    assert probed.stdout.startswith("5-shot accuracy 100.00% (100.00%, 100.00%, 100.00%) on 8")
    rows = [json.loads(line) for line in out.with_suffix(".log.jsonl").read_text().splitlines()]
    assert scalars(out.with_suffix(".tensorboard")) == {
        (name, row["step"]): pytest.approx(value, rel=1e-6)
        for row in rows
        for name, value in row.items()
        if name != "step"
    }


def scalars(folder: Path) -> dict[tuple[str, int], float]:
    """What TensorBoard would draw: records of length, checksum, event and checksum."""
    found: dict[tuple[str, int], float] = {}
    for file in folder.iterdir():
        content, at = file.read_bytes(), 0
        while at < len(content):
            length = int.from_bytes(content[at : at + 8], "little")
            event = event_pb2.Event.FromString(content[at + 12 : at + 12 + length])
            found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
            at += 12 + length + 4
    return found


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_told_to_stop_saves_the_step_that_it_is_at(
    images: Path, unbroken: Path, tmp_path: Path, by: signal.Signals
) -> None:
    out = tmp_path / "model.npz"
    flags: list[str | Path] = [*FLAGS, "--epochs", "20", "--data", images, "--out", out]
    done = stop_when(start("train", *flags), lambda: curve(out), by)
    assert done.returncode == 128 + by
    last = done.stderr.splitlines()[-1]
    assert last.startswith("stopped after step ")
    assert last.endswith(", which is saved: go on with --resume")
    assert saved_step(out) == int(last.split()[3].rstrip(","))
    again = run("train", *flags, "--resume")
    assert again.returncode == 0, again.stderr
    assert_equal_runs(out, unbroken)


def test_a_stop_before_the_first_step_says_what_to_do_next(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.npz"
    # Reading the images takes a while.
    many = tmp_path / "many/train"
    for name in CLASSES:
        (many / name).mkdir(parents=True)
        for index in range(3000):
            (many / name / f"{index}.png").symlink_to(images / "train" / name / "0.png")
    flags: list[str | Path] = [*FLAGS, "--data", tmp_path / "many", "--out", out]
    process = start("train", *flags)
    assert process.stderr is not None
    assert "/many/" in process.stderr.readline()  # it is at the images now
    process.send_signal(signal.SIGINT)
    early = finish(process)
    assert early.returncode == 130
    last = early.stderr.splitlines()[-1]
    assert last == "stopped; nothing had been saved yet: start again, without --resume"
    assert not saved_step(out)


def test_a_second_interrupt_ends_a_run_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Stopping() as stopping:
        signal.raise_signal(signal.SIGINT)
        assert stopping.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


def test_the_best_parameters_are_written_and_the_last_are_kept_to_go_on(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    falling = iter([0.9, 0.85, 0.83, 0.87])
    monkeypatch.setattr(
        "reference.train.evaluate", lambda *_: Accuracy(top1=next(falling), top5=1.0, images=16)
    )
    out = tmp_path / "model.npz"
    written = []

    def write(path: Path, values: checkpoint.Arrays) -> None:
        written.append(path.name)
        checkpoint.write_arrays(path, values)

    monkeypatch.setattr("reference.train.write_arrays", write)
    commands.train(dataclasses.replace(SMALL, epochs=4), data=images, out=out)
    assert "accuracy 90.00% on 16" in capsys.readouterr().out
    assert written == ["model.npz"]
    kept = sorted(int(entry.name) for entry in out.with_suffix(".checkpoints").iterdir())
    assert kept == [8, 32]


def test_a_resumed_run_drops_what_was_logged_after_the_save(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.npz"
    log = out.with_suffix(".log.jsonl")
    log.write_text('{"step": 3, "loss": 1.0}\n')  # of a run that never came to a save
    flags: list[str | Path] = [*FLAGS, "--epochs", "2", "--data", images, "--out", out]
    done = run("train", *flags)
    assert done.returncode == 0, done.stderr
    saved = log.read_text()
    assert [json.loads(line)["step"] for line in saved.splitlines()] == [8, 16]
    with log.open("a") as file:
        file.write('{"step": 17, "loss": 1.0}\n{"ste')
    again = run("train", *flags, "--resume")
    assert again.returncode == 0, again.stderr
    assert log.read_text() == saved


@pytest.mark.parametrize("installed", [True, False])
def test_that_there_is_no_tpu_is_said_only_where_its_library_is_installed(
    tmp_path: Path, installed: bool
) -> None:
    if installed:  # without its shared object
        (tmp_path / "libtpu.py").write_text("def get_library_path(): return None\n")
    else:
        hide = 'import sys\n\nsys.modules["libtpu"] = None\n'
        (tmp_path / "sitecustomize.py").write_text(hide)
    flags = ["--models", "mixer_testing", "--batch-sizes", "1"]
    flags += ["--windows", "1", "--seconds", "0.1"]
    done = run("throughput", *flags, python_path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert ("Unable to initialize backend 'tpu'" in done.stderr) is installed, done.stderr


def test_a_mistake_ends_in_one_line_and_exit_code_2(images: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("no archive")
    for source, message in (
        (tmp_path / "nowhere", f"{tmp_path}/nowhere/train: no such folder; expected"),
        (tmp_path / "notes.md", f"{tmp_path}/notes.md: expected a folder with train/<class>/"),
        (images / "train", f"{images}/train/train: no such folder; expected"),
    ):
        done = run("train", "--data", source, "--out", tmp_path / "model.npz")
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: {message}")
        assert len(done.stderr.splitlines()) == 1
    assert done.stderr.endswith(f"; did you mean {images}?\n")


def test_a_resumed_run_keeps_the_values_of_flags_that_are_left_out(
    images: Path, tmp_path: Path
) -> None:
    """And the checkpoint's name gets the suffix that was left out."""
    where = ("--data", images, "--out", tmp_path / "v1.5")
    done = run("train", *FLAGS, *where, "--epochs", "2", "--learning-rate", "0.002")
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}/v1.5.npz: accuracy" in done.stdout
    assert {"v1.5.npz", "v1.5.json", "v1.5.checkpoints"} <= {p.name for p in tmp_path.iterdir()}
    before = (tmp_path / "v1.5.json").read_text()
    again = run("train", *where, "--resume")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "v1.5.json").read_text() == before
    other = run("train", *where, "--resume", "--epochs", "3")
    assert other.returncode == 2
    assert "epochs: this run was started with 2, not 3; leave it out to go on" in other.stderr


def test_a_run_in_the_way_is_not_overwritten_nor_resumed_under_another_configuration(
    images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model.npz"
    once = dataclasses.replace(SMALL, epochs=1)
    with pytest.raises(commands.UserError, match="resume: there is no"):
        commands.train(once, data=images, out=out, resume=True)
    commands.train(once, data=images, out=out)
    before = out.read_bytes()
    with pytest.raises(commands.UserError, match="go on with --resume"):
        commands.train(once, data=images, out=out)
    with pytest.raises(commands.UserError, match="epochs: this run was started with 1, not 2"):
        commands.train(dataclasses.replace(SMALL, epochs=2), data=images, out=out, resume=True)
    assert out.read_bytes() == before


def test_with_every_augmentation_and_an_average_a_run_resumes_bit_for_bit(
    images: Path, tmp_path: Path
) -> None:
    flags: list[str | Path] = [*FLAGS, "--epochs", "4", "--data", images, "--ema-decay", "0.9"]
    flags += ["--mixup", "0.2", "--cutmix", "1", "--randaugment-layers", "2", "--optimizer", "muon"]
    flags += ["--min-crop-area", "0.3", "--precision", "bfloat16", "--workers", "2"]
    whole, broken = tmp_path / "whole.npz", tmp_path / "broken.npz"
    done = run("train", *flags, "--out", whole)
    assert done.returncode == 0, done.stderr
    stop_when(start("train", *flags, "--out", broken), lambda: saved_step(broken))
    again = run("train", *flags, "--out", broken, "--resume")
    assert again.returncode == 0, again.stderr
    assert_equal_runs(broken, whole)
    states = state.States(whole.with_suffix(".checkpoints"))
    config = TrainConfig(optimizer="muon", ema_decay=0.9)
    layout = Layout.over(jax.devices())
    kept = states.restore(build_optimizer(config), states.record(), layout)
    states.close()
    params, average = (tree["head"]["kernel"] for tree in (kept.params, kept.average))
    assert np.any(params != average)
    np.testing.assert_array_equal(arrays(whole)["head/kernel"], average)


def test_fine_tuning_starts_from_a_published_file_at_a_higher_resolution(
    images: Path, tmp_path: Path
) -> None:
    golden = Path(__file__).parents[1] / "golden/mixer_tiny/checkpoint.npz"
    out = tmp_path / "tuned.npz"
    flags: list[str | Path] = ["--start-from", golden, "--image-size", "64", "--batch-size", "8"]
    flags += ["--validation", "16", "--epochs", "4", "--learning-rate", "1e-3", "--data", images]
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
    result = run("evaluate", "--checkpoint", out, "--data", images)
    assert result.stdout.startswith("top-1 accuracy 100.00%"), result.stderr
    again = run("train", *flags, "--out", out, "--resume")  # done already, and says so
    assert again.returncode == 0, again.stderr
