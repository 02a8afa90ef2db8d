"""One request to classify, whichever dialect it came in: what all of them do, in one place.

In: the model and the deadline that a request asks for, and a way to read its images. Out: the
probabilities of each image. Admission comes before the body is read; the limits on bodies, the
deadline, the metrics and what happens when the client goes away are the same for all.
"""

import time
from collections.abc import Awaitable, Callable

from starlette.requests import Request

from server.engines.model import Model, Probabilities
from server.observability import metrics
from server.observability.telemetry import refused
from server.problems import BodyTooLarge, Problem, UnreadableImage, UnsupportedType
from server.serving.buffers import Hold
from server.serving.classify import Answer, Image, Terms
from server.serving.shadow import Copy
from server.web.bodies import WEB_FORM
from server.web.deadlines import seconds_for, while_connected
from server.web.state import state_of, timings_of


class Job:
    """The work for one request; `top_k` is how many classes its answer is to have."""

    def __init__(
        self, request: Request, model: Model, top_k: int, patience: float | None = None
    ) -> None:
        """`patience` is what `X-Request-Timeout` asks for. Raises `TooBusy`, `ModelNotReady`."""
        self.model = model
        self.top_k = top_k
        self.extras: tuple[str, ...] = ()  # outputs to have behind the probabilities
        self._request = request
        self._state = state_of(request)
        self._timings = timings_of(request.scope)
        self._timings.model = model.name
        self._seconds = seconds_for(patience, self._state.settings)
        self._client = self._state.clients.name(request.scope)
        self._state.classifier.check(model, 1, self._seconds, self._client)

    def _terms(self, hold: Hold) -> Terms:
        return Terms(self.model, self._seconds, self._client, self._timings, hold, self.extras)

    async def one(self, read: Callable[[Hold], Awaitable[Image]]) -> Answer:
        """Read one image and classify it. Raises the `Problem` of whatever fails."""
        with self._state.buffers.hold(self._client) as hold:
            began = time.perf_counter()
            try:
                data = await read(hold)
                self._timings.read = time.perf_counter() - began
                metrics.image_bytes.observe(len(data))
                with while_connected(self._request):
                    answer = await self._state.classifier.one(data, self._terms(hold))
            except (UnreadableImage, UnsupportedType) as problem:
                raise self._explained(problem) from None
        self._copy(data, answer[0])
        return answer

    async def many(
        self, read: Callable[[Hold], Awaitable[list[Image]]]
    ) -> tuple[list[Probabilities | Problem], str]:
        """Read several images and classify them: for each its probabilities or its problem."""
        with self._state.buffers.hold(self._client) as hold:
            began = time.perf_counter()
            images = await read(hold)
            self._timings.read = time.perf_counter() - began
            most = self._state.settings.max_batch_images
            if len(images) > most:
                raise BodyTooLarge(
                    f"the request has {len(images)} images, at most {most} are accepted"
                )
            for image in images:
                metrics.image_bytes.observe(len(image))
            with while_connected(self._request):
                answers, version = await self._state.classifier.many(images, self._terms(hold))
        for image, answer in zip(images, answers, strict=True):
            if isinstance(answer, Problem):
                self._explained(answer)
                refused(answer)
            else:
                self._copy(image, answer)
        return answers, version

    def _explained(self, problem: Problem) -> Problem:
        """The problem; where it is likely that curl has spoilt the image, its detail says so."""
        declared = self._request.headers.get("content-type", "").partition(";")[0].strip().lower()
        spoilt = isinstance(problem, UnreadableImage | UnsupportedType)
        if spoilt and declared.encode("latin-1") == WEB_FORM:
            problem.detail += (
                "; with curl send a file with --data-binary @FILE, since -d leaves out line breaks"
            )
        return problem

    def _copy(self, image: Image, row: Probabilities) -> None:
        """Offer a copy to the second model, if there is one, once the answer has left."""
        shadow = self._state.shadow
        if shadow is None or not shadow.wants(self.model):
            return
        inference = self._timings.inference or 0.0
        # Views would keep a whole body, or a batch, in memory.
        image = image if isinstance(image, bytes) else image.copy()
        probabilities = row[: self.model.classes].copy()
        copy = Copy(image, self.model, probabilities, inference, self._timings.request_id)
        self._request.scope["state"].setdefault("copies", []).append(copy)

    async def all(self, read: Callable[[Hold], Awaitable[list[Image]]]) -> "Rows":
        """As `many`, but raises the `Problem` of one bad image for the whole request."""
        answers, version = await self.many(read)
        rows = []
        for answer in answers:
            if isinstance(answer, Problem):
                raise answer
            rows.append(answer)
        return rows, version


Rows = tuple[list[Probabilities], str]
