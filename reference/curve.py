"""The progress of a run: a bar on a terminal, lines elsewhere, and the loss curve as a file.

In: step numbers and losses. Out: `NAME.log.jsonl`, one JSON object a line: step, loss,
images_per_second, and at the end of an epoch also epoch and validation_accuracy.
"""

import json
import time
from pathlib import Path
from types import TracebackType

import jax
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LOG_EVERY_SECONDS = 10.0


class Curve:
    """Records and shows a run from `first_step` to `total_steps`; a context manager."""

    def __init__(self, file: Path, first_step: int, total_steps: int, batch_size: int) -> None:
        self._file = file.open("a")
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
        )
        self._task = self._progress.add_task("training", total=total_steps, completed=first_step)
        self._since = time.monotonic()
        self._since_step = first_step

    def __enter__(self) -> "Curve":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
        self._file.close()

    def step(self, step: int, loss: jax.Array) -> None:
        """Count a step; its loss is read, which waits for the device, only every ten seconds."""
        self._progress.update(self._task, completed=step)
        if time.monotonic() - self._since >= LOG_EVERY_SECONDS:
            self._write(step, loss, {}, show=not self._progress.console.is_terminal)

    def epoch(self, step: int, loss: jax.Array, epoch: int, accuracy: float) -> None:
        """Count the last step of an epoch, with the accuracy on the held-back pictures."""
        self._progress.update(self._task, completed=step)
        row = {"epoch": epoch, "validation_accuracy": round(accuracy, 4)}
        self._write(step, loss, row, show=True)

    def _write(self, step: int, loss: jax.Array, more: dict[str, float], *, show: bool) -> None:
        images = (step - self._since_step) * self._batch_size
        value = float(loss)  # waits for the device, so it comes before the clock is read
        rate = images / (time.monotonic() - self._since)
        row = {"step": step, "loss": round(value, 4), "images_per_second": round(rate, 1), **more}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        self._progress.update(self._task, description=f"loss {value:.3f}  {rate:.0f} images/s")
        if show:
            minutes = (self._total_steps - step) * self._batch_size / rate / 60
            text = "  ".join(f"{name} {value}" for name, value in row.items())
            self._progress.console.print(f"{text}  left {minutes:.1f} min", highlight=False)
        self._since, self._since_step = time.monotonic(), step
