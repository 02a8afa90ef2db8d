"""Batches, prepared while the device computes.

In: a `Dataset` and a `TrainConfig`. Out: batches of uint8 images [N, H, W, 3] and int32 labels [N].
The order and the augmentation depend only on the seed, the epoch and the row of an image. A bounded
pool of threads prepares a few batches in advance; Pillow releases Python's global lock.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from reference.augment_image import randaugment, random_resized_crop, squashed_crop
from reference.config import TrainConfig
from reference.data import Dataset, Memory, shrink
from reference.schedule import total_steps

AHEAD = 4  # batches
CHUNK = 16  # images that one thread takes at a time

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]
Batch = tuple[Images, Labels]
Rows = npt.NDArray[np.intp]


def order(count: int, config: TrainConfig, first_step: int) -> Iterator[tuple[int, Rows]]:
    """Epoch and rows of every batch from `first_step` on.

    The images that do not fill an epoch's last batch are left out of that epoch.
    """
    per_epoch = count // config.batch_size
    shuffled, rows = -1, np.arange(count)
    for step in range(first_step, total_steps(config, per_epoch)):
        epoch, index = divmod(step, per_epoch)
        if epoch != shuffled:
            shuffled, rows = epoch, np.random.default_rng((config.seed, epoch)).permutation(count)
        yield epoch, rows[index * config.batch_size : (index + 1) * config.batch_size]


def training(
    dataset: Dataset, config: TrainConfig, first_step: int, process: int = 0, processes: int = 1
) -> Iterator[Batch]:
    """The batches of a run from `first_step` on; each has this process's share of the rows."""
    share = config.batch_size // processes

    def prepared(epoch: int, row: int) -> Images:
        if not config.on_images:
            return dataset.square(row)
        random = np.random.default_rng((config.seed, epoch, row))
        image = dataset.image(row)
        if config.min_crop_area < 1:
            image = random_resized_crop(image, config.image_size, config.min_crop_area, random)
        if config.resize:
            image = squashed_crop(image, config.resize, config.image_size, random)
        image = shrink(image, config.image_size)
        layers, magnitude = config.randaugment_layers, config.randaugment_magnitude
        return np.asarray(randaugment(image, layers, magnitude, random))

    plan = (
        (epoch, rows[process * share : (process + 1) * share])
        for epoch, rows in order(len(dataset), config, first_step)
    )
    if isinstance(dataset, Memory) and not config.on_images:
        return ((dataset.images[rows], dataset.labels[rows]) for _, rows in plan)
    return _ahead(dataset, plan, prepared, config.workers)


def in_order(
    dataset: Dataset, batch_size: int, workers: int = 0, process: int = 0, processes: int = 1
) -> Iterator[Batch]:
    """Every image once, unchanged; each batch has this process's share of the rows.

    The last batch may be smaller, and this process's share of it empty.
    """
    share = batch_size // processes
    ends = (
        (start + process * share, min(start + (process + 1) * share, len(dataset)))
        for start in range(0, len(dataset), batch_size)
    )
    plan = ((0, np.arange(*both)) for both in ends)
    if isinstance(dataset, Memory):
        return ((dataset.images[rows], dataset.labels[rows]) for _, rows in plan)
    return _ahead(dataset, plan, lambda _, row: dataset.square(row), workers)


def _ahead(
    dataset: Dataset,
    plan: Iterable[tuple[int, Rows]],
    prepare: Callable[[int, int], Images],
    workers: int,
) -> Iterator[Batch]:
    def chunk(epoch: int, rows: Rows) -> list[Images]:
        return [prepare(epoch, int(row)) for row in rows]

    pending: deque[tuple[Rows, list[Future[list[Images]]]]] = deque()

    def collect() -> Batch:
        rows, futures = pending.popleft()
        images = [image for future in futures for image in future.result()]
        empty = np.empty((0, dataset.image_size, dataset.image_size, 3), np.uint8)
        return np.stack(images) if images else empty, dataset.labels[rows]

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        try:
            for epoch, rows in plan:
                parts = [rows[at : at + CHUNK] for at in range(0, len(rows), CHUNK)]
                pending.append((rows, [pool.submit(chunk, epoch, part) for part in parts]))
                if len(pending) > AHEAD:
                    yield collect()
            while pending:
                yield collect()
        finally:
            pool.shutdown(cancel_futures=True)
