"""Whether a Triton, or one of its models, hangs: it neither answers its probe nor computes.

In: unanswered questions of a `Prober`, and the CPU time of the process that should answer. Out: a
sentence that says what hangs, or None. A process that is stopped, or waits for a lock for ever,
uses next to no CPU; a process that is slow, or gets little of a busy machine, uses some. Batches of
a large model on a CPU take long, so a model that computes gets more time. Imports only the standard
library.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from server.local_triton.probe import Prober, Question

IDLE_S = 6.0  # no answer and no CPU used for this long: it hangs
UNKNOWN_S = 10.0  # where the CPU time is not known: in NVIDIA's image, whose models run on a GPU
BUSY_SERVER_S = 30.0  # Triton's HTTP answers within milliseconds whatever its models do
BUSY_MODEL_S = 120.0
# A stub that waits checks for its parent three times a second: some hundred microseconds of CPU.
MOMENT_S = 0.02  # of CPU, two ticks of the kernel's clock
# If the supervisor itself paused for longer, missing answers of others mean nothing.
STEP_S = 1.0


@dataclass
class _Silence:
    """The facts about a question since it was asked."""

    since: float
    executions: int  # batches of the model
    seconds: float = 0.0  # for which it has been unanswered and no batch was run
    cpu: deque[tuple[float, float]] = field(default_factory=deque)  # of the last IDLE_S: (when, s)


class HangWatch:
    """Judges one Triton; `judge` is called at least every second."""

    def __init__(self, prober: Prober, cpu_seconds: Callable[[str | None], float | None]) -> None:
        """`cpu_seconds` returns the CPU time of a model, or for None that of tritonserver."""
        self._prober = prober
        self._cpu_seconds = cpu_seconds
        self._silences: dict[str | None, _Silence] = {}
        self._judged: float | None = None

    def judge(self, now: float) -> list[tuple[str | None, str]]:
        """What hangs, each with a sentence about it: a model's name, or None for Triton itself.

        `now` is a time of one clock, in seconds.
        """
        hanging: list[tuple[str | None, str]] = []
        step = 0.0 if self._judged is None else min(now - self._judged, STEP_S)
        self._judged = now
        questions: dict[str | None, Question] = {None: self._prober.server}
        questions.update(self._prober.models)
        for name in self._silences.keys() - questions.keys():
            del self._silences[name]
        for name, question in questions.items():
            if question.silent_since is None:
                self._silences.pop(name, None)
                continue
            silence = self._silences.get(name)
            state = question.silent_since, question.executions
            if silence is None or (silence.since, silence.executions) != state:
                self._silences[name] = _Silence(*state)
                continue
            silence.seconds += step
            if silence.seconds >= self._patience(name, silence, now):
                what = "Triton" if name is None else f"model {name}"
                seconds = f"{silence.seconds:.0f} s"
                hanging.append((name, f"{what} has not answered its probe for {seconds}"))
        return hanging

    def silences(self) -> dict[str | None, float]:
        """Seconds without an answer, by the model's name; None stands for Triton itself."""
        return {name: silence.seconds for name, silence in self._silences.items()}

    def _patience(self, name: str | None, silence: _Silence, now: float) -> float:
        used = self._cpu_seconds(name)
        if used is None:
            return UNKNOWN_S
        silence.cpu.append((now, used))
        while len(silence.cpu) > 1 and silence.cpu[1][0] <= now - IDLE_S:
            silence.cpu.popleft()
        began, before = silence.cpu[0]
        if now - began < IDLE_S - 2 * STEP_S or used - before < MOMENT_S:
            return IDLE_S
        return BUSY_SERVER_S if name is None else BUSY_MODEL_S
