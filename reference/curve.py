"""The progress of a run: a bar on a terminal, lines elsewhere, and the loss curve as a file.

In: step numbers and losses. Out: `NAME.log.jsonl`, one JSON object a line: step, loss,
images_per_second, input_wait, and at the end of an epoch also epoch and validation_accuracy.
`input_wait` is the share of the time in which the loop waited for images. The device, which has up
to two steps queued, is idle for at most that share. A resumed run continues the file after its
first step. The same numbers go to TensorBoard, in `NAME.tensorboard`.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from tensorboardX import SummaryWriter

from reference.checkpoint import write_text
from reference.step import Measured

LOG_EVERY_SECONDS = 10.0
T = TypeVar("T")


class Curve:
    """Records and shows a run from `first_step` to `total_steps`; a context manager.

    Without a file it neither records nor shows: so do all processes of a run except the first.
    """

    def __init__(
        self, file: Path | None, first_step: int, total_steps: int, batch_size: int
    ) -> None:
        if file and file.exists():
            _cut(file, first_step)
        self._file = file.open("a") if file else None
        self._board = _board(file, first_step) if file else None
        self._total_steps = total_steps
        self._batch_size = batch_size
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=file is None,
        )
        self._task = self._progress.add_task("training", total=total_steps, completed=first_step)
        self._since = time.monotonic()
        self._since_step = first_step
        self._waited = 0.0

    def __enter__(self) -> "Curve":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        if self._file:
            self._file.close()
        if self._board:
            self._board.close()

    def count_wait(self, batches: Iterator[T]) -> Iterator[T]:
        """Pass the batches on, and count the time that is spent waiting for them."""
        while True:
            before = time.monotonic()
            batch = next(batches, None)
            self._waited += time.monotonic() - before
            if batch is None:
                return
            yield batch

    def step(self, step: int, measured: Measured, rate: float) -> None:
        """Count a step; every ten seconds read its measurements, which waits for the device."""
        self._progress.update(self._task, completed=step)
        if time.monotonic() - self._since >= LOG_EVERY_SECONDS:
            self._write(step, measured, rate, {}, show=not self._progress.console.is_terminal)

    def epoch(
        self, step: int, measured: Measured, rate: float, epoch: float, accuracy: float
    ) -> None:
        """Count a step after which accuracy on the held-back images was measured."""
        self._progress.update(self._task, completed=step)
        whole = int(epoch) if epoch == int(epoch) else round(epoch, 3)
        row = {"epoch": whole, "validation_accuracy": round(accuracy, 4)}
        self._write(step, measured, rate, row, show=True)

    def _write(
        self,
        step: int,
        measured: Measured,
        learning_rate: float,
        more: dict[str, float],
        *,
        show: bool,
    ) -> None:
        if not self._file:
            return
        images = (step - self._since_step) * self._batch_size
        value = float(measured.loss)  # this waits for the device, so the clock is read afterwards
        seconds = time.monotonic() - self._since
        rate = images / seconds
        row = {
            "step": step,
            "loss": float(f"{value:.7g}"),  # the digits of a float32
            "learning_rate": float(f"{learning_rate:.4g}"),
            "gradient_norm": float(f"{float(measured.gradient_norm):.4g}"),
            "images_per_second": round(rate, 1),
            "input_wait": round(self._waited / seconds, 3),
            **more,
        }
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._board:
            for name, number in row.items():
                if name != "step":
                    self._board.add_scalar(name, number, step)
            self._board.flush()
        self._progress.update(self._task, description=f"loss {value:.3f}  {rate:.0f} images/s")
        if show:
            minutes = (self._total_steps - step) * self._batch_size / rate / 60
            text = "  ".join(f"{name} {value}" for name, value in row.items())
            self._progress.console.print(f"{text}  left {minutes:.1f} min", highlight=False)
        self._since, self._since_step, self._waited = time.monotonic(), step, 0.0


def _board(log: Path, first_step: int) -> SummaryWriter:
    """A writer of the same rows for TensorBoard; rows of steps that are done again are dropped."""
    folder = log.with_name(log.name.removesuffix(".log.jsonl") + ".tensorboard")
    return SummaryWriter(str(folder), purge_step=first_step + 1 if first_step else None)


def _cut(file: Path, step: int) -> None:
    """Drop the rows of steps after `step`, which are done again, and an incomplete last line."""

    def stays(line: str) -> bool:
        try:
            return bool(json.loads(line)["step"] <= step)
        except (ValueError, TypeError, KeyError):
            return False

    lines = file.read_text().splitlines()
    write_text(file, "".join(f"{line}\n" for line in lines if stays(line)))
