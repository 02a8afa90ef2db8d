"""Training as a user runs it: `python -m reference train` on small folders, stopped and resumed."""

import dataclasses
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from reference import commands, data
from reference.checkpoint import read_mixer
from reference.config import TrainConfig

CLASSES = ("dark", "light")
SMALL = TrainConfig(variant="mixer_testing", batch_size=8, validation=16)
FLAGS = ["--variant", "mixer_testing", "--batch-size", "8", "--validation", "16"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that brightness tells apart: 40 training and 4 test pictures each."""
    root = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 4)):
        for name, mean in zip(CLASSES, (60, 190), strict=True):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = random.normal(mean, 20, (32, 32, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return root


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "reference", *map(str, arguments)]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=100, check=False
    )


def curve(out: Path) -> list[tuple[int, float]]:
    """Step and loss at the end of every epoch."""
    log = out.with_suffix(".log.jsonl")
    rows = map(json.loads, log.read_text().splitlines() if log.exists() else [])
    return [(row["step"], row["loss"]) for row in rows if "epoch" in row]


def arrays(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def test_a_killed_and_resumed_run_ends_in_the_parameters_of_an_unbroken_one(
    pictures: Path, tmp_path: Path
) -> None:
    unbroken, broken = tmp_path / "unbroken.npz", tmp_path / "broken.npz"
    flags = [*FLAGS, "--epochs", "20", "--data", str(pictures)]
    done = run("train", *flags, "--out", unbroken)
    assert done.returncode == 0, done.stderr
    assert "held-back training pictures" in done.stdout

    with subprocess.Popen(
        command("train", *flags, "--out", broken), stdout=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 60
        while not curve(broken):
            assert time.monotonic() < deadline, "no epoch within a minute"
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    stopped_at = len(curve(broken))
    assert 0 < stopped_at < 20
    again = run("train", *flags, "--out", broken, "--resume")
    assert again.returncode == 0, again.stderr

    expected, found = arrays(unbroken), arrays(broken)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)
    assert dict(curve(broken)) == dict(curve(unbroken))


def test_a_trained_checkpoint_has_learnt_and_is_evaluated(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.npz"
    flags = ["--epochs", "8", "--crop-padding", "0", "--learning-rate", "0.01"]
    done = run("train", *FLAGS, *flags, "--data", pictures, "--out", out)
    assert done.returncode == 0, done.stderr
    assert out.with_suffix(".labels.txt").read_text().split() == list(CLASSES)
    assert json.loads(out.with_suffix(".json").read_text())["variant"] == "mixer_testing"
    assert read_mixer(out)[1] == 2
    result = run("evaluate", "--checkpoint", out, "--data", pictures)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("top-1 accuracy 100.00% on 8 pictures")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variant": "mixer_b17"}, "variant: no 'mixer_b17'; there are mixer_s32,"),
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
        commands.train(dataclasses.replace(SMALL, **change), pictures, tmp_path / "model.npz")

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
        commands.train(once, pictures, out, resume=True)
    commands.train(once, pictures, out)
    before = out.read_bytes()
    with pytest.raises(commands.UserError, match="go on with --resume"):
        commands.train(once, pictures, out)
    with pytest.raises(commands.UserError, match="epochs: this run was started with 1, not 2"):
        commands.train(dataclasses.replace(SMALL, epochs=2), pictures, out, resume=True)
    assert out.read_bytes() == before


def test_broken_pictures_are_named_and_skipped_or_refused(
    pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "train/dark"
    folder.mkdir(parents=True)
    whole = pictures / "train/dark/0.png"
    (folder / "good.png").write_bytes(whole.read_bytes())
    (folder / "cut.png").write_bytes(whole.read_bytes()[:200])
    (folder / "text.jpg").write_text("no picture")
    (folder / "notes.txt").write_text("not even called one")
    dataset = data.load(tmp_path, "train", 32)
    assert len(dataset) == 1
    assert {"cut.png", "text.jpg"} == {Path(m.split(":")[0]).name for m in caplog.messages}
    with pytest.raises(data.DataError, match=r"(cut\.png|text\.jpg): not a picture"):
        data.load(tmp_path, "train", 32, refuse_broken=True)


def test_the_published_cifar10_archive_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-python.tar.gz"
    planes = np.random.default_rng(0).integers(0, 256, (6, 3072), np.uint8)
    with tarfile.open(path, "w:gz") as archive:
        add(archive, "data_batch_1", {b"data": planes[:4], b"labels": [3, 1, 0, 1]})
        add(archive, "test_batch", {b"data": planes[4:], b"labels": [2, 0]})
        add(archive, "batches.meta", {b"label_names": [b"airplane", b"bird", b"cat", b"frog"]})
    training = data.load(path, "train", 32)
    assert training.classes == ("airplane", "bird", "cat", "frog")
    assert training.labels.tolist() == [3, 1, 0, 1]
    np.testing.assert_array_equal(training.images[2, :, :, 1], planes[2, 1024:2048].reshape(32, 32))
    assert len(data.load(path, "test", 32)) == 2


def test_an_archive_with_code_inside_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path}/executed",)

    path = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        add(archive, "data_batch_1", Evil())
    with pytest.raises(data.DataError, match=r"refused to load posix\.system"):
        data.load(path, "train", 32)
    assert not (tmp_path / "executed").exists()


def add(archive: tarfile.TarFile, name: str, content: object) -> None:
    """Add a pickle with the module name that NumPy 1 wrote into CIFAR-10."""
    body = pickle.dumps(content, protocol=3).replace(b"numpy._core.", b"numpy.core.")
    member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
    member.size = len(body)
    archive.addfile(member, io.BytesIO(body))
