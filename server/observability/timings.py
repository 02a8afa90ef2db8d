"""Where the time of one request went, in seconds for each stage.

In: the stages as a request passes them. Out: the header `Server-Timing` (W3C Server Timing);
metrics, traces and the log read the same numbers.
"""

import time
from dataclasses import dataclass

# In the order in which a request passes them; each is a field of `Timings`.
STAGES = ("read", "admission", "queue", "decode", "inference")


@dataclass(slots=True)
class Timings:
    """Seconds that a request spent in each stage; None is a stage that it never reached."""

    started: float
    request_id: str = ""
    model: str = ""  # the one that was asked for, once it is known to exist
    read: float | None = None
    admission: float | None = None
    decode: float | None = None
    queue: float | None = None
    inference: float | None = None
    average_batch: float | None = None

    def header(self) -> bytes:
        """The value of `Server-Timing`, durations in milliseconds."""
        phases = [
            f"{name};dur={1000 * seconds:.3f}"
            for name, seconds in (("decode", self.decode), ("queue", self.queue))
            if seconds is not None
        ]
        if self.inference is not None:
            phase = f"inference;dur={1000 * self.inference:.3f}"
            if self.average_batch is not None:
                phase += f';desc="average batch {self.average_batch:.2f}"'
            phases.append(phase)
        phases.append(f"total;dur={1000 * (time.perf_counter() - self.started):.3f}")
        return ", ".join(phases).encode()
