"""How often a lost call to Triton is repeated: defined here, and nowhere else.

Classification changes no data, so repeating a call does no harm. A call that Triton dropped or
refused to take is sent once more to the same address, where another Triton may have taken its place
(docs/docker.md). A call that is still lost with its Triton is repeated once on another one. So one
batch causes four calls at worst. gRPC repeats nothing by itself. A call that took too long, or
whose answer breaks the contract, is never repeated. Each repetition is counted by its kind.

In: the kind of a repetition. Out: the limits above, and counts for Prometheus.
"""

from enum import StrEnum

from server.observability import metrics

SAME_ADDRESS = 1
SAME_ADDRESS_PAUSE = 0.05  # seconds before it
OTHER_TRITON = 1


class Kind(StrEnum):
    """Why and where a call was repeated: the kinds in `mixer_triton_retries_total`."""

    SAME_ADDRESS = "same-address"  # dropped or not taken; sent to the same address
    AWAY = "away"  # the connection or the Triton is gone; sent to another Triton
    NOT_READY = "not-ready"  # the Triton is there, the model is not; sent to another Triton
    FAILED_OVER = "failed-over"  # the Triton, or the model there, is frozen; sent to another Triton


def count(kind: Kind) -> None:
    """Count one repetition."""
    metrics.retries.labels(kind.value).inc()
    if kind is not Kind.SAME_ADDRESS:
        metrics.repeated.inc()


# Every count exists from the start, so that Prometheus sees the first retry as a change.
for _kind in Kind:
    metrics.retries.labels(_kind.value)
