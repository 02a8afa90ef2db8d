"""A trace of a few steps, for TensorBoard's profiler and Perfetto.

In: a folder, or None for no trace. Out: the folder with the trace of ten steps. The first steps, in
which programs are compiled and queues fill, are not recorded.
"""

from pathlib import Path

import jax

SKIPPED, RECORDED = 10, 10  # steps


class Tracing:
    """Records some steps of a run that begins with step `first`; a context manager."""

    def __init__(self, folder: Path | None, first: int) -> None:
        self._folder = folder
        self._begin, self._end = first + SKIPPED, first + SKIPPED + RECORDED
        self._records = False

    def __enter__(self) -> "Tracing":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def before(self, step: int) -> None:
        """Count a step that is about to begin."""
        if self._folder is None:
            return
        if step == self._begin:
            jax.profiler.start_trace(str(self._folder))
            self._records = True
        elif step == self._end:
            self._stop()

    def _stop(self) -> None:
        if self._records:
            jax.profiler.stop_trace()
            self._records = False
