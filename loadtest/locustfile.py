"""The load test for locust: real images, every answer checked.

    locust -f loadtest/locustfile.py --host http://127.0.0.1:8000

In: a running gateway; the options below beside locust's own. Out: locust's statistics, and at the
end the phases of `Server-Timing` and percentiles of our own samples, since locust rounds its
percentiles to two digits. The requests are prepared before locust's clock starts. With
--arrival-rate a request is sent when it is due, and is timed from that moment. The exit status is 1
after a failed request, after a wrong answer, and when no request was sent at all.
"""

import json
import math
import statistics
import sys
import threading
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import gevent
import httpx
import numpy as np
from gevent.pool import Pool
from locust import FastHttpUser, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import MasterRunner

from loadtest.load import answers, forms, sample_images
from loadtest.stats.percentiles import percentiles

MOST_UNDER_WAY = 1000  # of one user, at a fixed rate


class Plan:
    """The requests and their right answers; made when a test starts, the same for all users."""

    def __init__(self, options: Namespace, host: str, worker: int) -> None:
        folder = Path(options.images) if options.images else None
        self.sample_images = sample_images.load(folder, options.pictures, options.picture_seed)
        self.headers = {"X-API-Key": options.api_key} if options.api_key else {}
        self.batch = options.batch
        self.host = host
        # A different sequence in each process, and the same sequences in each run.
        self.random = np.random.default_rng([options.picture_seed, worker])
        with httpx.Client(base_url=host, headers=self.headers, trust_env=False) as client:
            self.model = options.model or _get(client, "/models")["default"]
            about = _get(client, f"/models/{self.model}")
            if about["state"] == "unavailable":
                raise RuntimeError(f"{self.model} is not served: {about['reason']}")
            precision = answers.precision_of(about["provenance"])
            recorded = min(answers.RECORDED, about["classes"])
            self.right = [
                answers.record(
                    _get(client, f"/classify?model={self.model}&top_k={recorded}", image.data),
                    answers.TOLERANCE.get(precision, 1e-3),
                )
                for image in self.sample_images
            ]
        top_k = self.right[0].top_k
        self.path = f"/classify{'/batch' if self.batch else ''}?model={self.model}&top_k={top_k}"
        # One form for each first image, made once: making a form costs more than sending it.
        count = len(self.sample_images)
        self.groups = [[(n + i) % count for i in range(max(1, self.batch))] for n in range(count)]
        self.bodies: list[Any] = [  # locust takes bytes, but does not say so
            forms.form([self.sample_images[number] for number in group])
            if self.batch
            else self.sample_images[group[0]].data
            for group in self.groups
        ]

    def wrong(self, number: int, document: Any) -> str:  # noqa: ANN401 - JSON
        """What is wrong with the answer to body `number`; "" if it is right."""
        right = [self.right[each] for each in self.groups[number]]
        if not self.batch:
            return answers.wrong(document, right[0])
        match document:
            case {"model": self.model, "results": [*results]} if len(results) == len(right):
                for result, expected in zip(results, right, strict=True):
                    if "predictions" not in result:
                        return f"an image was not classified: {result}"
                    problem = answers.misshapen_predictions(result["predictions"])
                    if problem := problem or answers.wrong_predictions(
                        result["predictions"], expected
                    ):
                        return problem
                return ""
        return f"not an answer for {len(right)} images: {str(document)[:200]}"


_plan: Plan | None = None
_samples: list[float] = []  # milliseconds; infinite where a request failed
_phases: dict[str, list[float]] = {}  # milliseconds
_started = threading.Lock()


def _get(client: httpx.Client, path: str, body: bytes | None = None) -> Any:  # noqa: ANN401 - JSON
    kind = {"Content-Type": "application/octet-stream"}
    response = client.get(path) if body is None else client.post(path, content=body, headers=kind)
    if response.status_code != 200:
        raise RuntimeError(f"{path}: {response.status_code} {response.text[:300]}")
    return response.json()


def _options(parser: LocustArgumentParser) -> None:
    parser.add_argument("--images", default="", help="Folder of images; without, made ones")
    parser.add_argument("--pictures", type=int, default=16, help="How many different images")
    parser.add_argument("--picture-seed", type=int, default=0, help="Of images that are made")
    parser.add_argument("--model", default="", help="Model to ask; default: the gateway's")
    parser.add_argument("--batch", type=int, default=0, help="Images per form; 0: /classify")
    parser.add_argument(
        "--arrival-rate",
        type=float,
        default=0.0,
        help="Requests per second of each locust process, sent whether or not earlier ones have "
        "been answered, and timed from when they were due; 0: each user sends the next one when it "
        "has its answer",
    )
    parser.add_argument(
        "--arrivals",
        choices=("poisson", "even"),
        default="poisson",
        help="With --arrival-rate: at random times, as independent people send, or evenly spaced",
    )
    parser.add_argument("--api-key", default="", is_secret=True, help="Of a gateway with keys")
    parser.add_argument("--samples", default="", help="File for each request's milliseconds")


def _prepare(environment: Environment) -> None:
    """Make the plan, once for each host; a test that cannot start ends with exit status 1."""
    global _plan  # noqa: PLW0603 - locust's listeners share nothing else
    host = environment.host or ""
    if _plan is not None and _plan.host == host:
        return
    try:
        worker = getattr(environment.runner, "worker_index", 0)
        _plan = Plan(environment.parsed_options or Namespace(), host, worker)
    except (OSError, RuntimeError, ValueError, httpx.HTTPError, httpx.InvalidURL) as error:
        print(f"cannot start: {host}: {error}", file=sys.stderr)
        environment.process_exit_code = 1
        if environment.runner is not None:
            environment.runner.quit()


def _init(environment: Environment, **_: object) -> None:
    """Make the plan before locust's clock starts, if the host is known by then."""
    options = environment.parsed_options
    if (
        options is not None
        and options.headless
        and not isinstance(environment.runner, MasterRunner)
    ):
        with _started:
            _prepare(environment)


def _start(environment: Environment, **_: object) -> None:
    with _started:
        _samples.clear()
        _phases.clear()
        if not isinstance(environment.runner, MasterRunner):
            before = _plan
            _prepare(environment)
            if _plan is not before:
                environment.stats.reset_all()  # the making of the plan is no part of the test


def _note(request_type: str, response_time: float, exception: object, **_: object) -> None:
    if request_type == "POST":
        _samples.append(math.inf if exception else response_time)


def _report(environment: Environment, **_: object) -> None:
    if environment.stats.total.num_requests == 0:
        print("no request was answered, so nothing was tested", file=sys.stderr)
        environment.process_exit_code = 1
    if not _samples:
        return
    print(f"own samples, {len(_samples)} requests, ms:", end=" ")
    found = percentiles(_samples).values()
    print(", ".join(f"p{each.level:g} {each.text('.2f')}" for each in found) or "too few")
    for phase, milliseconds in _phases.items():
        print(f"phase {phase}: mean {statistics.fmean(milliseconds):.2f} ms", end="; ")
    print()
    options = environment.parsed_options
    if options is not None and options.samples:
        Path(options.samples).write_text("".join(f"{value:.4f}\n" for value in _samples))


class ImageUser(FastHttpUser):
    """Sends images."""

    concurrency = MOST_UNDER_WAY  # connections of one user

    def on_start(self) -> None:
        """Begin at another image than the other users."""
        if _plan is None:
            raise StopUser
        self._plan = _plan
        self._next = int(_plan.random.integers(len(_plan.bodies)))
        self._under_way = Pool(MOST_UNDER_WAY)
        self._due = time.monotonic()

    def on_stop(self) -> None:
        """Wait for the requests that are under way."""
        self._under_way.join(timeout=60)

    def wait_time(self) -> float:
        """Seconds until the next request is due: 0 without a rate.

        A user that has fallen behind sends the overdue requests at once; each is timed from the
        moment at which it was due.
        """
        options = self.environment.parsed_options
        if not options.arrival_rate:
            return 0.0
        gap = max(1, self.environment.runner.user_count) / options.arrival_rate
        self._due += self._plan.random.exponential(gap) if options.arrivals == "poisson" else gap
        return max(0.0, self._due - time.monotonic())

    @task
    def classify(self) -> None:
        """Send one request; at a fixed rate the user does not wait for the answer."""
        self._next = (self._next + 1) % len(self._plan.bodies)
        if self.environment.parsed_options.arrival_rate:
            self._under_way.add(gevent.spawn(self._ask, self._next, self._due))
        else:
            self._ask(self._next, time.monotonic())

    def _ask(self, number: int, due: float) -> None:
        plan = self._plan
        kind = forms.FORM_TYPE if plan.batch else "application/octet-stream"
        with self.client.request(
            "POST",
            plan.path,
            data=plan.bodies[number],
            headers={"Content-Type": kind, **plan.headers},
            name=plan.path.partition("?")[0],
            catch_response=True,
        ) as response:
            # locust itself counts from the moment at which the request was sent.
            response.request_meta["response_time"] = 1e3 * (time.monotonic() - due)
            if response.status_code != 200:
                response.failure(f"status {response.status_code}: {(response.text or '')[:200]}")
                return
            try:
                document = json.loads(response.content)
            except ValueError as error:
                response.failure(f"wrong answer: not JSON: {error}")
                return
            if problem := plan.wrong(number, document):
                response.failure(f"wrong answer: {problem}")
                return
            response.success()
        for phase, milliseconds in forms.phases(response.headers.get("Server-Timing", "")).items():
            _phases.setdefault(phase, []).append(milliseconds)


events.init_command_line_parser.add_listener(_options)
events.init.add_listener(_init)
events.test_start.add_listener(_start)
events.request.add_listener(_note)
events.test_stop.add_listener(_report)
