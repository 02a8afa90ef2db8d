"""Which photographs `make proof` looks at; the proof itself runs in .ci/run, where some are."""

from pathlib import Path

import pytest

from tests.proof.photographs import NoPhotographsError, truths


def imagenet(folder: Path) -> Path:
    """The validation set's layout: 1,000 synsets with two empty files each."""
    for index in range(1000):
        synset = folder / f"n{index * 7:08d}"
        synset.mkdir(parents=True)
        for number in range(2):
            (synset / f"ILSVRC2012_val_{number}.JPEG").touch()
    return folder


def test_the_order_of_the_synsets_is_that_of_the_classes(tmp_path: Path) -> None:
    found = truths(imagenet(tmp_path), 5000)
    assert len(found) == 2000
    assert found[tmp_path / "n00000700" / "ILSVRC2012_val_1.JPEG"] == 100
    some = truths(tmp_path, 100)
    assert len(some) == 100
    assert len(set(some.values())) == 100
    assert some.items() <= found.items()


@pytest.mark.parametrize("within", [True, False])
def test_a_table_names_the_classes(within: bool, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    table = (folder if within else tmp_path) / "photos-classes.tsv"
    table.write_text("file\timagenet1k_index\na.jpg\t7\nb.jpg\t9\n")
    assert truths(folder, 10) == {folder / "a.jpg": 7, folder / "b.jpg": 9}


def test_another_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    with pytest.raises(NoPhotographsError, match=r"beside it.* found 1 folders"):
        truths(tmp_path, 10)
