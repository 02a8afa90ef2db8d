"""Signals that end a training run between two steps, so that no step is lost.

In: SIGTERM and SIGINT (Ctrl-C). Out: whether one came. The second SIGINT ends the run at once.
"""

import signal
from types import FrameType
from typing import Any

import jax


class Stopped(Exception):  # noqa: N818 - not an error: the run ended as asked
    """A signal ended a run; the exception's text says what to do next."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.number = number  # the signal's number


class Stopping:
    """Notes signals while it is entered; a context manager of the main thread."""

    def __init__(self) -> None:
        self.number = 0  # the number of the signal that came; 0: none came
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stopping":
        signals = [signal.SIGINT]
        # With several processes JAX's coordinator handles SIGTERM, so that all stop at one step.
        if jax.process_count() == 1:
            signals.append(signal.SIGTERM)
        for number in signals:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self.number:
            raise KeyboardInterrupt
        self.number = number
        if jax.process_count() > 1:
            signal.raise_signal(signal.SIGTERM)  # JAX's coordinator sends it to all processes
