"""contracts/images/folders.py: folders of photos as people have them."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.images.folders import LeftOut, find_classes, find_images
from contracts.images.formats import HEIC_IS_READ


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")


PLAIN = ("cat/a.jpg", "dog/b.jpg")


@pytest.mark.parametrize(
    "names",
    [
        (".ipynb_checkpoints/",),
        ("cat/.ipynb_checkpoints/a-checkpoint.jpg",),
        ("@eaDir/cat/SYNO_PHOTO.jpg", "dog/@eaDir/b.jpg/SYNO_PHOTO_THUMB.jpg"),
        ("__MACOSX/cat/._a.jpg",),
        ("cat/._a.jpg", ".DS_Store", "cat/.DS_Store"),
        (".git/objects/a.jpg", ".Trash-1000/files/c.jpg", "#recycle/c.jpg"),
        ("$RECYCLE.BIN/c.jpg", "System Volume Information/c.jpg", "lost+found/c.jpg"),
        ("cat/Thumbs.db", "desktop.ini", "dog/Desktop.ini"),
    ],
)
def test_hidden_and_system_entries_are_no_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    write(tmp_path, *PLAIN, *names)
    tree = find_classes(tmp_path)
    assert tree.classes == ("cat", "dog")
    assert [file.relative_to(tmp_path).as_posix() for file in tree.files] == list(PLAIN)
    assert tree.labels == (0, 1)


def test_every_suffix_of_an_image_counts(tmp_path: Path) -> None:
    names = ["a.jpg", "b.JPEG", "c.jpe", "d.jfif", "e.PNG", "f.Tif", "g.webp", "h.bmp", "i.GIF"]
    write(tmp_path, *(f"class/{name}" for name in names))
    assert [file.name for file in find_classes(tmp_path).files] == names


def test_folders_below_a_class_are_walked(tmp_path: Path) -> None:
    write(tmp_path, "cat/2023/05/a.jpg", "cat/b.jpg", "dog/x/y/z.jpg")
    tree = find_classes(tmp_path)
    assert tree.classes == ("cat", "dog")
    assert tree.labels == (0, 0, 1)
    found, _ = find_images(tmp_path)
    assert found == list(tree.files)


def test_links_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path / "photos", "a.jpg")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/cat").symlink_to(tmp_path / "photos")
    (tmp_path / "photos/again").symlink_to(tmp_path / "photos")
    assert find_classes(tmp_path / "tree").files == (tmp_path / "tree/cat/a.jpg",)


def test_what_is_left_out_is_counted_and_named(tmp_path: Path) -> None:
    write(
        tmp_path,
        *PLAIN,
        "cat/notes.txt",
        "cat/more.TXT",
        "labels.csv",
        "@eaDir/x.jpg",
        "cat/README",
    )
    left_out = find_classes(tmp_path).left_out
    assert left_out.suffixes == {".txt": 2, ".csv": 1, "README": 1}
    assert left_out.folders == {"@eaDir": 1}
    assert str(left_out) == (
        "4 files that are no images by their names (2 × .txt, 1 × .csv, 1 × README) and "
        "1 hidden or system folder (@eaDir)"
    )
    assert str(LeftOut()) == ""
    if not HEIC_IS_READ:
        write(tmp_path, "cat/iphone.HEIC")
        assert "HEIC is read after `make heic`" in str(find_classes(tmp_path).left_out)


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, *PLAIN)
    real = os.scandir

    def scandir(path: str) -> Iterator[os.DirEntry[str]]:
        if Path(path).name == "dog":  # a fake, since root may read everything
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    tree = find_classes(tmp_path)
    assert [file.name for file in tree.files] == ["a.jpg"]
    assert str(tree.left_out) == "1 folder (dog: Permission denied)"


def test_classes_are_named_in_any_language_and_counted(tmp_path: Path) -> None:
    names = ["Käfer", "ice\u00a0cream", "می\u200cخواهم", "日本", "👩\u200d🌾"]
    write(tmp_path, *(f"{name}/a.jpg" for name in names), "empty/")
    tree = find_classes(tmp_path)
    assert tree.classes == tuple(sorted([*names, "empty"]))
    assert "empty (0)" in tree.summary()
    assert tree.summary(most=1) == f"6 classes: {tree.classes[0]} (1), 5 more"
