"""The endpoints: parameters in, answers out; what they take and return is their documentation.

In: a request, with its `Timings` in its state. Out: its answer as a pydantic model, or the
`Problem` that `Envelope` answers instead.
"""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from server.engines.model import Entry, Model
from server.observability import metrics
from server.problems import Problem, Unauthorized, UnknownModel
from server.serving.buffers import Hold
from server.serving.classify import Image
from server.serving.predictions import best
from server.web import openapi
from server.web.bodies import read_image, read_images
from server.web.changed_models import is_changed
from server.web.job import Job
from server.web.parameters import Asked, Timeout
from server.web.schemas import (
    BatchClassification,
    Classification,
    Classified,
    Live,
    Models,
    ModelSummary,
    ProblemSummary,
    Ready,
    Refused,
)
from server.web.state import State, state_of

router = APIRouter()
Wanted = Annotated[Asked, Query()]


@router.post(
    "/classify",
    summary="Classify one image",
    responses=openapi.responses(Classification, *openapi.CLASSIFY),
    openapi_extra=openapi.IMAGE_BODY | openapi.SECURITY,
)
async def classify(request: Request, query: Wanted, patience: Timeout = None) -> Classification:
    """The image is the body, or the field `image` of a form or of a JSON object."""
    job = Job(request, *query.resolve(state_of(request).models), patience)
    job.extras = query.extras(job.model)
    row, version = await job.one(lambda hold: read_image(request, hold))
    predictions = query.wanted(best(job.model, row[: job.model.classes], job.top_k))
    return Classification(
        model=job.model.name,
        version=version,
        predictions=predictions,
        unsure=query.verdict(job.model, row),
    )


@router.post(
    "/classify/batch",
    summary="Classify several images; one bad image does not spoil the others",
    responses=openapi.responses(BatchClassification, *openapi.CLASSIFY),
    openapi_extra=openapi.BATCH_BODY | openapi.SECURITY,
)
async def classify_batch(
    request: Request, query: Wanted, patience: Timeout = None
) -> BatchClassification:
    """The images are the fields `image` of a form, and the answers come in their order."""
    names: list[str | None] = []

    async def read(hold: Hold) -> list[Image]:
        uploads = await read_images(request, hold)
        names.extend(upload.filename for upload in uploads)
        return [upload.data for upload in uploads]

    job = Job(request, *query.resolve(state_of(request).models), patience)
    job.extras = query.extras(job.model)
    answers, version = await job.many(read)
    results: list[Classified | Refused] = []
    for filename, answer in zip(names, answers, strict=True):
        if isinstance(answer, Problem):
            error = ProblemSummary.model_validate(answer.document())
            results.append(Refused(filename=filename, error=error))
        else:
            predictions = query.wanted(best(job.model, answer[: job.model.classes], job.top_k))
            verdict = query.verdict(job.model, answer)
            results.append(Classified(filename=filename, predictions=predictions, unsure=verdict))
    return BatchClassification(model=job.model.name, version=version, results=results)


@router.get(
    "/models",
    summary="The models that Triton serves",
    responses=openapi.responses(Models, Unauthorized, *openapi.SERVING),
    openapi_extra=openapi.SECURITY,
    response_model_exclude_none=True,
)
async def list_models(request: Request) -> Models:
    """By name, those that cannot be served too."""
    state = state_of(request)
    entries = [await _summary(state, entry) for entry in state.models.entries()]
    return Models(default=state.models.default, models=entries)


@router.get(
    "/models/{name}",
    summary="One model: input size, labels, version, provenance, state",
    responses=openapi.responses(ModelSummary, Unauthorized, UnknownModel, *openapi.SERVING),
    openapi_extra=openapi.SECURITY,
    response_model_exclude_none=True,
)
async def show_model(request: Request, name: Annotated[str, Path()]) -> ModelSummary:
    """With its labels, in the order of their indices."""
    state = state_of(request)
    entry = state.models.entry(name)
    summary = await _summary(state, entry)
    if isinstance(entry, Model):
        summary.labels = entry.labels
    return summary


@router.get(
    "/livez",
    summary="Whether the gateway runs, whatever Triton does",
    responses=openapi.responses(Live),
)
async def live() -> Live:
    """For a supervisor that starts the process again."""
    return Live()


async def ready(request: Request) -> Ready:
    """For a load balancer. The answer is good for a second."""
    model = await state_of(request).check_ready()
    return Ready(model=model.name, version=model.version)


for path in ("/readyz", "/healthz"):
    router.get(
        path,
        summary="Whether every model answers a real inference as it did when loaded",
        responses=openapi.responses(Ready, *openapi.READINESS),
    )(ready)


@router.get(
    "/metrics",
    summary="Counts and times for Prometheus",
    response_class=Response,
    responses={200: openapi.PROMETHEUS},
)
async def prometheus(request: Request) -> Response:
    """Of all workers together; made at most once a second."""
    text = await state_of(request).metrics.latest()
    return Response(text, headers={"content-type": metrics.CONTENT_TYPE_LATEST})


async def _summary(state: State, entry: Entry) -> ModelSummary:
    told = {**entry.summary(), "default": entry.name == state.models.default}
    if isinstance(entry, Model) and await is_changed(state.settings, entry):
        told["changed"] = True
    return ModelSummary.model_validate(told)
