"""Reading images: in memory and as they are needed, broken files, CIFAR-10's own archive."""

import io
import os
import pickle
import re
import shutil
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reference import data
from tests.contracts.images.corpus.writers import exif, saved, scene
from tests.reference.runs import write_images


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), training=6, size=40)


def test_files_give_the_pixels_that_memory_has(images: Path) -> None:
    memory = data.load(images, "train", 32)
    files = data.load(images, "train", 32, memory_gib=0)
    assert isinstance(memory, data.Memory)
    assert isinstance(files, data.Files)
    assert files.labels.tolist() == memory.labels.tolist() == [0] * 6 + [1] * 6
    for row in range(len(files)):
        np.testing.assert_array_equal(files.square(row), memory.images[row])
    rest, held_back = data.split_validation(files, 4, seed=0)
    assert (len(rest), len(held_back)) == (8, 4)
    np.testing.assert_array_equal(
        held_back.square(2), data.split_validation(memory, 4, seed=0)[1].square(2)
    )


def test_a_file_that_breaks_off_is_replaced_by_another_of_its_class(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_images(tmp_path, training=3)
    cut = tmp_path / "train/dark/1.png"
    cut.write_bytes(cut.read_bytes()[:1500])  # the header is whole
    files = data.load(tmp_path, "train", 32, memory_gib=0)
    assert len(files) == 6
    for _ in range(2):
        np.testing.assert_array_equal(files.square(1), files.square(2))
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"{cut}: replaced by another")
    with pytest.raises(data.DataError, match=r"1\.png: not an image that can be read"):
        data.load(tmp_path, "train", 32, memory_gib=0, refuse_broken=True)
    for name in ("0", "2"):
        file = tmp_path / f"train/dark/{name}.png"
        file.write_bytes(file.read_bytes()[:1500])
    with pytest.raises(
        data.DataError, match=r"'dark' cannot be .* of 3 files .*/dark/0\.png: .*truncated"
    ):
        data.load(tmp_path, "train", 32, memory_gib=0).square(0)


def test_a_turned_photograph_is_read_upright_and_a_large_one_at_a_fraction(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    image = Image.new("RGB", (1600, 800))
    image.paste((255, 255, 255), (0, 0, 800, 800))  # the left half is white
    image.save(tmp_path / "photo.jpg", exif=exif)
    upright = data.open_upright(tmp_path / "photo.jpg", 64)
    assert upright.width < upright.height < 800
    assert np.asarray(upright)[:10].min() > 240  # and is above now
    assert np.asarray(upright)[-10:].max() < 15


def test_broken_images_are_named_and_skipped_or_refused(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "train/dark"
    folder.mkdir(parents=True)
    whole = images / "train/dark/0.png"
    (folder / "good.png").write_bytes(whole.read_bytes())
    (folder / "cut.png").write_bytes(whole.read_bytes()[:200])
    (folder / "text.jpg").write_text("no image")
    (folder / "notes.txt").write_text("not even called one")
    dataset = data.load(tmp_path, "train", 32)
    assert len(dataset) == 1
    assert {"cut.png", "text.jpg"} == {
        Path(m.removeprefix("skipped ").split(":")[0]).name for m in caplog.messages
    }
    with pytest.raises(data.DataError, match=r"(cut\.png|text\.jpg): not an image"):
        data.load(tmp_path, "train", 32, refuse_broken=True)


@pytest.mark.parametrize("as_files", [False, True])
def test_a_class_of_which_no_image_can_be_read_is_refused(
    images: Path, tmp_path: Path, as_files: bool, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = tmp_path / "train/good", tmp_path / "train/bad"
    good.mkdir(parents=True)
    bad.mkdir()
    (good / "0.png").write_bytes((images / "train/dark/0.png").read_bytes())
    for number in range(4):
        (bad / f"{number}.jpg").write_text("no image")
    wanted = r"'bad' cannot be a class: not one of 4 files .* the first, .*bad/0\.jpg: .*text"
    with pytest.raises(data.DataError, match=wanted):
        data.load(tmp_path, "train", 32, every_class=True, as_files=as_files)
    dataset = data.load(tmp_path, "train", 32, as_files=as_files)  # as `evaluate` does it
    if as_files:  # no file was opened yet
        with pytest.raises(data.DataError, match=wanted):
            dataset.square(2)
    else:
        assert len(dataset) == 1
        assert re.match(wanted, caplog.messages[-1])


def test_a_class_folder_without_an_image_is_refused(images: Path, tmp_path: Path) -> None:
    shutil.copytree(images / "train", tmp_path / "train")
    (tmp_path / "train/empty").mkdir()
    with pytest.raises(data.DataError, match=r"'empty' cannot be a class: there is no image in"):
        data.load(tmp_path, "train", 32, memory_gib=0, every_class=True)


def test_folders_as_people_have_them_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """EXIF that Pillow cannot write anew, other suffixes, folders below and hidden ones."""
    folder = tmp_path / "train"
    for name in ("cat/2023", "dog", ".ipynb_checkpoints", "@eaDir/cat"):
        (folder / name).mkdir(parents=True)
    stored = scene(40, 32)
    fraction = (0x0111, 11, 1, struct.pack("<f", 1.5))
    block = b"Exif\0\0" + exif((0x0112, 3, 1, struct.pack("<H", 6)), fraction)
    (folder / "cat/2023/odd.JFIF").write_bytes(saved(stored, "JPEG", quality=95, exif=block))
    (folder / "dog/new.avif").write_bytes(saved(stored, "AVIF"))
    (folder / "dog/notes.txt").write_text("not even called an image")
    (folder / "@eaDir/cat/thumb.jpg").write_bytes(saved(stored, "JPEG"))
    with caplog.at_level("INFO"):
        dataset = data.load(tmp_path, "train", 32)
    assert isinstance(dataset, data.Memory)
    assert dataset.classes == ("cat", "dog")
    assert dataset.labels.tolist() == [0, 1]
    upright = Image.fromarray(np.rot90(stored, -1)).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.abs(dataset.images[0].astype(int) - np.asarray(upright)).mean() < 4
    assert f"{folder}: 2 images of 2 classes: cat (1), dog (1)" in caplog.messages
    assert any("1 × .txt" in message and "@eaDir" in message for message in caplog.messages)


def test_the_published_cifar10_archive_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-python.tar.gz"
    planes = np.random.default_rng(0).integers(0, 256, (6, 3072), np.uint8)
    with tarfile.open(path, "w:gz") as archive:
        add(archive, "data_batch_1", {b"data": planes[:4], b"labels": [3, 1, 0, 1]})
        add(archive, "test_batch", {b"data": planes[4:], b"labels": [2, 0]})
        add(archive, "batches.meta", {b"label_names": [b"airplane", b"bird", b"cat", b"frog"]})
    training = data.load(path, "train", 32)
    assert isinstance(training, data.Memory)
    assert training.classes == ("airplane", "bird", "cat", "frog")
    assert training.labels.tolist() == [3, 1, 0, 1]
    np.testing.assert_array_equal(training.images[2, :, :, 1], planes[2, 1024:2048].reshape(32, 32))
    assert len(data.load(path, "test", 32)) == 2


def test_the_published_cifar100_archive_is_read_with_its_fine_classes(tmp_path: Path) -> None:
    path = tmp_path / "cifar-100-python.tar.gz"
    planes = np.random.default_rng(0).integers(0, 256, (3, 3072), np.uint8)
    with tarfile.open(path, "w:gz") as archive:
        both = {b"data": planes[:2], b"fine_labels": [1, 0], b"coarse_labels": [0, 0]}
        add(archive, "train", both)
        add(archive, "test", {b"data": planes[2:], b"fine_labels": [1], b"coarse_labels": [0]})
        names = {b"fine_label_names": [b"apple", b"bee"], b"coarse_label_names": [b"things"]}
        add(archive, "meta", names)
    training = data.load(path, "train", 32)
    assert isinstance(training, data.Memory)
    assert training.classes == ("apple", "bee")
    assert training.labels.tolist() == [1, 0]
    assert data.load(path, "test", 32).labels.tolist() == [1]


def write_tars(images: Path, folder: Path) -> None:
    """The same images in two tar files of WebDataset's kind."""
    folder.mkdir()
    (folder / "classes.txt").write_text("dark\nlight\n")
    files = sorted((images / "train").glob("*/*.png"))
    for part in range(2):
        with tarfile.open(folder / f"train-00000{part}.tar", "w") as tar:
            for index, file in enumerate(files[part::2]):
                for suffix, content in (
                    ("png", file.read_bytes()),
                    ("cls", str(("dark", "light").index(file.parent.name)).encode()),
                    ("json", b"{}"),
                ):
                    entry = tarfile.TarInfo(f"part{part}/{index:06d}.{suffix}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))


def test_images_in_tar_files_are_those_of_the_folder(images: Path, tmp_path: Path) -> None:
    write_tars(images, tmp_path / "tars")
    folder = data.load(images, "train", 32)
    tars = data.load(tmp_path / "tars", "train", 32)
    lazy = data.load(tmp_path / "tars", "train", 32, memory_gib=0)
    assert isinstance(folder, data.Memory)
    assert isinstance(tars, data.Memory)
    assert tars.classes == folder.classes == ("dark", "light")

    def sums(dataset: data.Memory, label: int) -> list[int]:
        return sorted(dataset.images[dataset.labels == label].sum(axis=(1, 2, 3)).tolist())

    assert [sums(tars, label) for label in (0, 1)] == [sums(folder, label) for label in (0, 1)]
    for row in range(len(lazy)):
        np.testing.assert_array_equal(lazy.square(row), tars.images[row])


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("cls", b"cat", r"expected the number of a class, found 'cat'"),
        ("cls", b"2", r"classes.txt: has 2 classes, the tar files 3"),
        (None, b"", r"expected a whole, uncompressed tar file"),
    ],
)
def test_tar_files_that_cannot_be_used_are_named(
    images: Path, tmp_path: Path, name: str | None, content: bytes, says: str
) -> None:
    write_tars(images, tmp_path / "tars")
    broken = tmp_path / "tars/train-000001.tar"
    if name is None:
        broken.write_bytes(b"no tar file")
    else:
        with tarfile.open(broken, "a") as tar:
            for suffix, body in (("png", b"x"), (name, content)):
                entry = tarfile.TarInfo(f"new.{suffix}")
                entry.size = len(body)
                tar.addfile(entry, io.BytesIO(body))
    with pytest.raises(data.DataError, match=says):
        data.load(tmp_path / "tars", "train", 32)


def test_nothing_is_lost_behind_a_damaged_header_of_a_tar_file(
    images: Path, tmp_path: Path
) -> None:
    write_tars(images, tmp_path / "tars")
    broken = tmp_path / "tars/train-000000.tar"
    with tarfile.open(broken) as tar:
        third = tar.getmembers()[6].offset
    content = bytearray(broken.read_bytes())
    content[third : third + 10] = b"\xff" * 10
    broken.write_bytes(content)
    with pytest.raises(data.DataError, match=rf"train-000000\.tar: .* damaged at byte {third}"):
        data.load(tmp_path / "tars", "train", 32)
    broken.write_bytes(content[:third])  # without the zeros that end an archive, as some write it
    assert len(data.load(tmp_path / "tars", "train", 32)) == 6 + 2


def test_a_large_set_is_not_opened_before_its_images_are_asked_for(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    real = Path.read_bytes

    def spy(path: Path) -> bytes:
        opened.append(path)
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", spy)
    dataset = data.load(images, "train", 32, memory_gib=0)
    assert opened == []
    dataset.square(3)
    assert len(opened) == 1


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


@pytest.mark.parametrize("harm", ["stream", "checksum", "pickle"])
def test_a_damaged_archive_is_refused(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "cifar-10-python.tar.gz"
    planes = np.random.default_rng(0).integers(0, 4, (40, 3072), np.uint8)  # shrink when packed
    with tarfile.open(path, "w:gz") as archive:
        add(archive, "batches.meta", {b"label_names": [b"cat"]})
        for number in (1, 2, 3):
            add(archive, f"data_batch_{number}", {b"data": planes, b"labels": [0] * 40})
        if harm == "pickle":
            member = tarfile.TarInfo("cifar-10-batches-py/data_batch_4")
            member.size = 2
            archive.addfile(member, io.BytesIO(b"\x80\xff"))  # a protocol of the future
    if harm != "pickle":
        whole = bytearray(path.read_bytes())
        at = 3000 if harm == "stream" else len(whole) - 8
        whole[at : at + 4] = bytes(4)
        path.write_bytes(whole)
    with pytest.raises(data.DataError, match=r"cifar-10-python\.tar\.gz: expected .*, found "):
        data.load(path, "train", 32)


def test_a_survey_looks_for_the_first_file_that_is_an_image(tmp_path: Path) -> None:
    write_images(tmp_path, training=2, size=40)
    first = tmp_path / "train/dark/0.png"
    first.write_text("no image")
    assert data.survey(tmp_path, "train") == (4, 40 * 40)
    jpeg = tmp_path / "train/dark/00.jpg"
    jpeg.write_bytes(saved(scene(48, 32), "JPEG"))
    assert data.survey(tmp_path, "train") == (5, 48 * 32)
    jpeg.unlink()
    for file in (tmp_path / "train").glob("*/*.png"):
        file.write_text("no image")
    with pytest.raises(data.DataError, match=r"not one of 4 files .* the first, .*dark/0\.png: "):
        data.survey(tmp_path, "train")


def add(archive: tarfile.TarFile, name: str, content: object) -> None:
    """Add a pickle with the module name that NumPy 1 wrote into CIFAR-10."""
    body = pickle.dumps(content, protocol=3).replace(b"numpy._core.", b"numpy.core.")
    member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
    member.size = len(body)
    archive.addfile(member, io.BytesIO(body))
