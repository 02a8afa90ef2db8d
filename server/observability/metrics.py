"""The metrics of the gateway, for Prometheus: correct for one process and for several.

In: each request when it has been answered, each image when its header has been read. Out: the
text that GET /metrics gives. With `--workers` each process writes its numbers into a file of the
folder that `PROMETHEUS_MULTIPROC_DIR` names, and whichever worker is asked answers for all.
"""

import functools
import multiprocessing
import os
import platform
from collections.abc import Iterable, Mapping
from http import HTTPStatus

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from server import __version__
from server.host.processes import usage

__all__ = ["CONTENT_TYPE_LATEST", "FOLDER_VARIABLE", "render", "start"]

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
# A stage takes from tens of microseconds (a tiny decode) to a deadline of many seconds.
SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)

requests = Counter(
    "mixer_requests", "Requests answered, by path, model and status.", ("path", "model", "status")
)
in_flight = Gauge(
    "mixer_requests_in_flight", "Requests under way now.", multiprocess_mode="livesum"
)
tasks = Gauge(
    "mixer_tasks", "Tasks of the event loop, looked at once a second.", multiprocess_mode="livesum"
)
stage_seconds = Histogram(
    "mixer_stage_seconds",
    "Seconds that a request to /classify or /classify/batch spent in a stage.",
    ("stage", "model"),
    buckets=SECONDS,
)
shed = Counter("mixer_requests_shed", "Requests refused because the gateway was too busy.")
unreadable = Counter(
    "mixer_images_refused", "Images that were refused or could not be decoded.", ("reason",)
)
image_pixels = Histogram(
    "mixer_image_pixels",
    "Width × height of the images that were decoded.",
    buckets=tuple(float(4**power) for power in range(5, 15)),
)
image_bytes = Histogram(
    "mixer_image_bytes",
    "Encoded size of the images sent.",
    buckets=tuple(float(4**power) for power in range(5, 14)),
)
decode_oldest = Gauge(
    "mixer_decode_oldest_seconds",
    "For how long the oldest image has waited to be decoded, or is being decoded.",
    multiprocess_mode="livemax",
)
decode_waiting = Gauge(
    "mixer_decode_waiting", "Images that wait to be decoded.", multiprocess_mode="livesum"
)
decode_bytes = Gauge(
    "mixer_decode_bytes",
    "Memory that the images which are being decoded may take.",
    multiprocess_mode="livesum",
)
average_batch = Gauge(
    "mixer_triton_average_batch",
    "Images per execution in Triton, since the last look at which it had worked.",
    ("model",),
    multiprocess_mode="mostrecent",
)
replicas = Gauge(
    "mixer_triton_replicas",
    "Tritons that answer, of each worker the fewest.",
    multiprocess_mode="livemin",
)
repeated = Counter(
    "mixer_triton_calls_repeated", "Calls that were lost with a Triton and repeated on another."
)
retries = Counter(
    "mixer_triton_retries",
    "Calls to Triton that were repeated, by why and where: same-address, or on another Triton.",
    ("kind",),
)
PAIR = ("model", "candidate")
shadow_copies = Counter(
    "mixer_shadow_copies",
    "Copies of requests for a second model, by what became of them: compared, failed, unfit, or "
    "dropped since there was no room (full), users' images waited (busy), or it failed (paused).",
    (*PAIR, "outcome"),
)
shadow_agreed = Counter(
    "mixer_shadow_agreed", "Copies for which both models name the same class first.", PAIR
)
SHARES = (*(10.0**power for power in range(-6, -1)), 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
shadow_divergence = Histogram(
    "mixer_shadow_divergence", "Jensen-Shannon divergence of both answers, in bits.", PAIR,
    buckets=SHARES,
)  # fmt: skip
shadow_difference = Histogram(
    "mixer_shadow_difference", "Mean absolute difference of the probabilities.", PAIR,
    buckets=SHARES,
)  # fmt: skip
shadow_seconds = Histogram(
    "mixer_shadow_inference_seconds",
    "Seconds of inference for the answer that users got (served), and for the copy (shadow).",
    (*PAIR, "side"),
    buckets=SECONDS,
)
certificate_expires = Gauge(
    "mixer_certificate_expires_timestamp_seconds",
    "When the gateway's own certificate ends; 0 without TLS.",
    multiprocess_mode="livemin",
)
build = Gauge("mixer_build_info", "Always 1.", ("version", "python"), multiprocess_mode="max")

# Problems of an image, as opposed to those of the request or the server.
ABOUT_IMAGES = {
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
}


class Processes(Collector):
    """CPU and memory of the gateway, its workers and decoders; not of a Triton that it started."""

    def collect(self) -> Iterable[Metric]:
        """Measure the processes now."""
        cpu = CounterMetricFamily(
            "mixer_process_cpu_seconds", "CPU time of a process of the gateway.", labels=("pid",)
        )
        memory = GaugeMetricFamily(
            "mixer_process_memory_bytes", "Resident memory of the process.", labels=("pid",)
        )
        parent = multiprocessing.parent_process()  # of a worker
        pid = os.getpid() if parent is None or parent.pid is None else parent.pid
        for each in usage(pid, without="tritonserver"):
            cpu.add_metric((str(each.pid),), each.cpu_seconds)
            memory.add_metric((str(each.pid),), each.memory_bytes)
        return cpu, memory


REGISTRY.register(Processes())


@functools.cache
def seconds_of(stage: str, model: str) -> Histogram:
    """The histogram of one stage: looked up once, not for every request."""
    return stage_seconds.labels(stage, model)


def start() -> None:
    """Say which build this is."""
    build.labels(__version__, platform.python_version()).set(1)


def render(batches: Mapping[str, float]) -> bytes:
    """All numbers of all workers, in Prometheus' text format; `batches`: `Engine.average_batch`."""
    for model, average in batches.items():
        average_batch.labels(model).set(average)
    return generate_latest(together())


def together() -> CollectorRegistry:
    """The numbers of all workers."""
    if FOLDER_VARIABLE not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call] # the library has no types
    registry.register(Processes())
    return registry
