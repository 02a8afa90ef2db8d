"""Batches: every image once an epoch, the same after a stop, divided among processes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from reference import data, pipeline
from reference.config import TrainConfig
from tests.reference.runs import write_images

CONFIG = TrainConfig(batch_size=6, image_size=16, epochs=3, workers=2)
AUGMENTED = dataclasses.replace(CONFIG, randaugment_layers=2, min_crop_area=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), training=10)


def all_batches(dataset: data.Dataset, config: TrainConfig, first: int = 0) -> list[pipeline.Batch]:
    return list(pipeline.training(dataset, config, first))


def assert_same(found: list[pipeline.Batch], expected: list[pipeline.Batch]) -> None:
    assert len(found) == len(expected)
    for (images, labels), (expected_images, expected_labels) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(images, expected_images)
        np.testing.assert_array_equal(labels, expected_labels)


def test_an_epoch_has_every_image_at_most_once_in_an_order_of_its_own() -> None:
    rows = [rows for _, rows in pipeline.order(20, CONFIG, 0)]
    assert len(rows) == 9
    epochs = [np.concatenate(rows[i : i + 3]) for i in (0, 3, 6)]
    assert all(len(set(epoch)) == 18 for epoch in epochs)
    assert epochs[0].tolist() != epochs[1].tolist()


@pytest.mark.parametrize("memory_gib", [0.0, 4.0], ids=["files", "memory"])
@pytest.mark.parametrize("config", [CONFIG, AUGMENTED], ids=["plain", "augmented"])
def test_a_resumed_run_gets_the_batches_that_were_left(
    folder: Path, config: TrainConfig, memory_gib: float
) -> None:
    dataset = data.load(folder, "train", 16, memory_gib=memory_gib)
    whole = all_batches(dataset, config)
    assert len(whole) == 9
    assert whole[0][0].shape == (6, 16, 16, 3)
    assert_same(all_batches(dataset, config, first=4), whole[4:])
    # However many threads there are.
    assert_same(all_batches(dataset, dataclasses.replace(config, workers=1)), whole)


def test_images_are_augmented_anew_in_every_epoch(folder: Path) -> None:
    dataset = data.load(folder, "train", 16)
    config = dataclasses.replace(AUGMENTED, batch_size=20)
    first, second, _ = (images for images, _ in all_batches(dataset, config))
    ordered = [np.sort(images.reshape(20, -1).sum(axis=1)) for images in (first, second)]
    assert not np.array_equal(ordered[0], ordered[1])


def test_processes_get_their_shares_of_each_batch(folder: Path) -> None:
    dataset = data.load(folder, "train", 16, memory_gib=0)
    shares = [list(pipeline.training(dataset, AUGMENTED, 0, part, 2)) for part in range(2)]
    joined = [
        (np.concatenate([a, b]), np.concatenate([c, d]))
        for (a, c), (b, d) in zip(*shares, strict=True)
    ]
    assert_same(joined, all_batches(dataset, AUGMENTED))


def test_evaluation_sees_every_image_once_in_order(folder: Path) -> None:
    memory = data.load(folder, "train", 16)
    files = data.load(folder, "train", 16, memory_gib=0)
    batches = list(pipeline.in_order(files, 8))
    assert [len(labels) for _, labels in batches] == [8, 8, 4]
    assert_same(batches, list(pipeline.in_order(memory, 8)))


def test_an_error_in_a_thread_comes_out_and_ends_the_pool(tmp_path: Path) -> None:
    write_images(tmp_path, training=10)
    dataset = data.load(tmp_path, "train", 16, memory_gib=0)
    for file in (tmp_path / "train/light").iterdir():
        file.write_bytes(b"")
    with pytest.raises(data.DataError, match="'light' cannot be a class: not one of 10 files"):
        all_batches(dataset, CONFIG)
