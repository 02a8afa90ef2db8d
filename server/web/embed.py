"""POST /embed: the vector that a model makes of an image before it decides on a class.

In: one image, or several. Out: a vector for each, in JSON or as bytes: the output `embedding` of
the model. Images that the model takes for alike have close vectors. Models without that output are
refused by name.
"""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from contracts.repository import EMBEDDING
from server.engines.model import Model, Probabilities
from server.problems import BadParameter, Problem
from server.serving.buffers import Hold
from server.serving.classify import Image
from server.web import openapi
from server.web.bodies import Upload, read_one_or_many
from server.web.job import Job
from server.web.parameters import Timeout
from server.web.schemas import Embedded, Embeddings, ProblemSummary, Refused
from server.web.state import state_of

router = APIRouter()
BYTES = "application/octet-stream"
ANSWERS = openapi.responses(Embeddings, *openapi.CLASSIFY)
ANSWERS[200]["content"][BYTES] = openapi.BINARY | {"example": ""}
ANSWERS[200]["headers"] = openapi.HEADERS | {
    openapi.SHAPE_HEADER: {
        "schema": openapi.TEXT,
        "description": "Of an answer in bytes, little-endian float32 row by row: N,D.",
    }
}


@router.post(
    "/embed",
    summary="Embed one image or several",
    response_model=Embeddings,
    responses=ANSWERS,
    openapi_extra=openapi.EMBED_BODY | openapi.SECURITY,
)
async def embed(
    request: Request,
    model: Annotated[
        str | None, Query(description="Name of the model; the server's default if absent.")
    ] = None,
    patience: Timeout = None,
) -> Embeddings | Response:
    """Of several images each has its own result; with `Accept: application/octet-stream` any that
    cannot be read is the answer to all."""
    _check_query(request)
    models = state_of(request).models
    chosen = models.get(models.default if model is None else model)
    if EMBEDDING not in chosen.extras:
        raise BadParameter(
            f"model {chosen.name!r} gives no embeddings: its graph has no output {EMBEDDING!r}. "
            "`python -m export` adds that to a checkpoint and to published weights; to an ONNX "
            "file only where its scores come straight from a last product with constant weights "
            "(--output names the scores). GET /models tells which models have embeddings"
        )
    job = Job(request, chosen, chosen.top_k(None), patience)
    job.extras = (EMBEDDING,)
    uploads: list[Upload] = []

    async def read(hold: Hold) -> list[Image]:
        uploads.extend(await read_one_or_many(request, hold))
        return [upload.data for upload in uploads]

    answers, version = await job.many(read)
    binary = BYTES in request.headers.get("accept", "")
    results: list[Embedded | Refused] = []
    rows: list[Probabilities] = []
    for number, (upload, answer) in enumerate(zip(uploads, answers, strict=True), start=1):
        if isinstance(answer, Problem):
            if len(uploads) == 1:
                raise answer
            if binary:
                raise type(answer)(f"image {number} of {len(uploads)}: {answer.detail}")
            error = ProblemSummary.model_validate(answer.document())
            results.append(Refused(filename=upload.filename, error=error))
            continue
        row = chosen.split(answer, job.extras)[EMBEDDING]
        rows.append(row)
        if not binary:
            results.append(Embedded(filename=upload.filename, embedding=_numbers(row)))
    if binary:
        return _in_bytes(chosen, rows)
    return Embeddings(
        model=chosen.name,
        version=version,
        dimensions=chosen.extras[EMBEDDING],
        results=results,
    )


def _check_query(request: Request) -> None:
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if name != "model":
            raise BadParameter(f"there is no parameter {name[:40]!r}; there is: model")
    if len(names) > 1:
        raise BadParameter("model is given twice, once is expected")


def _numbers(row: Probabilities) -> list[float]:
    """Nine digits give back the same float32; its digits as a float64 would be twice as many."""
    return [float(f"{number:.9g}") for number in row.tolist()]


def _in_bytes(model: Model, rows: list[Probabilities]) -> Response:
    body = b"".join(row.astype("<f4").tobytes() for row in rows)
    shape = f"{len(rows)},{model.extras[EMBEDDING]}"
    return Response(body, headers={"content-type": BYTES, openapi.SHAPE_HEADER: shape})
