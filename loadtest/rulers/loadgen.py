"""MLPerf LoadGen as a client of the gateway: it sends JPEGs over HTTP and keeps the clock.

In: a task as JSON on the command line. Out: one line of JSON with the results in LoadGen's log.
This is a program of its own, since LoadGen blocks the process that it runs in. LoadGen's clock
starts when it hands a sample to the client. Here the sample is the JPEG, so the whole path of a
request is measured, and the figures are no MLPerf result.
https://github.com/mlcommons/inference/tree/master/loadgen
"""

import array
import dataclasses
import http.client
import json
import queue
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SERVER_LIMIT_NS = 15_000_000  # ResNet-50's p99 in the scenario Server, mlperf.conf
HELD = 1024  # samples in memory, the number of mlperf.conf for ResNet-50
LOG = ":::MLLOG "


@dataclasses.dataclass(frozen=True)
class Task:
    """One measurement by LoadGen."""

    url: str
    path: str  # of the POST request
    images: list[str]  # files
    scenario: str  # SingleStream, MultiStream, Server or Offline
    queries: int
    connections: int
    rate: float = 0.0  # requests per second of the scenario Server
    accuracy: bool = False
    seed: int = 0  # of the moments of the scenario Server, and of the order of the samples


class Clients:
    """Threads that take samples from a queue; each thread has its own connection."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._images = [Path(name).read_bytes() for name in task.images]
        self._work: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.failed = 0
        for _ in range(task.connections):
            threading.Thread(target=self._client, daemon=True).start()

    def issue(self, samples: list[Any]) -> None:
        """Put samples into the queue; returns at once."""
        for sample in samples:
            self._work.put(sample)

    def _client(self) -> None:
        import mlperf_loadgen  # noqa: PLC0415 - it has wheels for some machines alone

        connection = http.client.HTTPConnection(urlsplit(self._task.url).netloc, timeout=60)
        headers = {"Content-Type": "application/octet-stream"}
        while True:
            sample = self._work.get()
            image = self._images[sample.index % len(self._images)]
            said = -1
            try:
                connection.request("POST", self._task.path, image, headers)
                response = connection.getresponse()
                body = response.read()
                if response.status == 200:
                    said = json.loads(body)["predictions"][0]["index"]
            except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
                connection.close()  # no answer, or none to /classify: it has failed
            self.failed += said < 0
            answer = array.array("q", [said])
            address, count = answer.buffer_info()
            mlperf_loadgen.QuerySamplesComplete([
                mlperf_loadgen.QuerySampleResponse(sample.id, address, count * answer.itemsize)
            ])  # fmt: skip


def run(task: Task) -> dict[str, Any]:
    """Measure; returns the results in LoadGen's log, and in accuracy mode each image's class."""
    import mlperf_loadgen as lg  # noqa: PLC0415 - it has wheels for some machines alone

    settings = lg.TestSettings()
    settings.scenario = getattr(lg.TestScenario, task.scenario)
    mode = lg.TestMode.AccuracyOnly if task.accuracy else lg.TestMode.PerformanceOnly
    settings.mode = mode
    settings.min_query_count = settings.max_query_count = task.queries
    settings.min_duration_ms = 0
    settings.server_target_qps = task.rate or 1.0
    settings.server_target_latency_ns = SERVER_LIMIT_NS
    settings.server_target_latency_percentile = 0.99
    # With one seed every run has the same moments, and their p99 by chance is in no interval.
    settings.schedule_rng_seed = settings.sample_index_rng_seed = task.seed
    # The scenario Offline is one query of all samples; LoadGen sizes the query as 1.1 × this number
    # × the seconds.
    settings.offline_expected_qps = 1.0
    with tempfile.TemporaryDirectory(prefix="loadgen-") as folder:
        logs = lg.LogSettings()
        logs.log_output.outdir, logs.log_output.copy_summary_to_stdout = folder, False
        logs.enable_trace = False
        clients = Clients(task)
        count = len(task.images) if task.accuracy else min(HELD, task.queries)
        sut = lg.ConstructSUT(clients.issue, lambda: None)
        qsl = lg.ConstructQSL(count, count, lambda _: None, lambda _: None)
        lg.StartTestWithLogSettings(sut, qsl, settings, logs)
        lg.DestroyQSL(qsl)
        lg.DestroySUT(sut)
        found = parsed(Path(folder, "mlperf_log_detail.txt").read_text())
        found["failed"] = clients.failed
        if task.accuracy:
            answers = json.loads(Path(folder, "mlperf_log_accuracy.json").read_text())
            found["answers"] = {
                each["qsl_idx"]: int.from_bytes(bytes.fromhex(each["data"]), "little", signed=True)
                for each in answers
            }
    return found


def parsed(detail: str) -> dict[str, Any]:
    """The results in LoadGen's detailed log."""
    found: dict[str, Any] = {}
    for line in detail.splitlines():
        if line.startswith(LOG):
            entry = json.loads(line.removeprefix(LOG))
            if entry["key"].startswith(("result_", "early_stopping_")):
                found[entry["key"]] = entry["value"]
    return found


if __name__ == "__main__":
    print(json.dumps(run(Task(**json.loads(sys.argv[1])))))
