"""Short summaries of the load engine's samples.

In: samples. Out: the samples with right answers, and a line of text with latencies.
"""

from collections.abc import Sequence

import numpy as np

from loadtest.load.engine import Sample


def good(samples: Sequence[Sample]) -> list[Sample]:
    """The samples with right answers."""
    return [sample for sample in samples if not sample.answered.error]


def latencies(samples: Sequence[Sample]) -> str:
    """Median, 99th percentile and maximum, in milliseconds, of all answers, whatever the status."""
    if not samples:
        return "none"
    p50, p99, most = 1000 * np.percentile([s.done - s.due for s in samples], (50, 99, 100))
    return f"median {p50:.1f} ms, p99 {p99:.1f} ms, most {most:.1f} ms"
