"""The Open Inference Protocol v2 over REST, as Triton and KServe speak it.

In: a tensor `image`: `UINT8 [N, H, W, 3]`, or encoded images as `BYTES [N]`; in JSON, or binary
behind it (Triton's binary tensor extension). Out: `probabilities` and `logits` FP32 [N, K], or the
best classes of each (classification extension), and `embedding` FP32 [N, D], in JSON or binary.
Sources: kserve/open-inference-protocol, `inference_rest.md`; triton-inference-server/server,
`docs/protocol/extension_*.md`.
"""

import re
from typing import Any

from fastapi import APIRouter, Request, Response

from server import __version__
from server.engines.model import Model
from server.problems import BadBody
from server.serving.buffers import Hold
from server.serving.classify import Image
from server.web.bodies import check_encoding, read_body
from server.web.dialects.dialect import (
    OBJECT,
    Dialect,
    Name,
    Version,
    documented,
    json_response,
    model_of,
)
from server.web.dialects.oip_tensors import (
    HEADER,
    Wanted,
    answer,
    images_of,
    outputs_of,
    split,
    wanted_of,
)
from server.web.job import Job
from server.web.parameters import Timeout
from server.web.state import state_of

router = APIRouter(tags=["Open Inference Protocol v2"])
EXTENSIONS = ["classification", "binary_tensor_data"]


@router.get("/v2", summary="The server", **documented())
async def server() -> Response:
    """Its name, version and extensions."""
    return json_response(
        {"name": "mixer-serving", "version": __version__, "extensions": EXTENSIONS}
    )


@router.get("/v2/health/live", summary="Whether the process runs", **documented())
async def live() -> Response:
    """Whatever the engine does."""
    return json_response({"live": True})


@router.get("/v2/health/ready", summary="Whether every model answers", **documented())
async def ready(request: Request) -> Response:
    """Or the problem that a request would get."""
    await state_of(request).check_ready()
    return json_response({"ready": True})


@router.get("/v2/models/{name}", summary="A model's tensors", **documented())
async def metadata(request: Request, name: Name) -> Response:
    """The input as pixels; encoded images are taken under the same name."""
    return json_response(_metadata(model_of(request, name)))


@router.get("/v2/models/{name}/versions/{version}", summary="The same", **documented())
async def metadata_version(request: Request, name: Name, version: Version) -> Response:
    """Of a version."""
    return json_response(_metadata(model_of(request, name, version)))


@router.get("/v2/models/{name}/ready", summary="Whether a model is ready", **documented())
async def model_ready(request: Request, name: Name) -> Response:
    """Or 404 or 503."""
    return json_response({"name": model_of(request, name).name, "ready": True})


@router.get(
    "/v2/models/{name}/versions/{version}/ready",
    summary="Whether a version of a model is ready",
    **documented(),
)
async def version_ready(request: Request, name: Name, version: Version) -> Response:
    """Or 404 or 503."""
    return json_response({"name": model_of(request, name, version).name, "ready": True})


@router.post("/v2/models/{name}/infer", summary="Classify", **documented(OBJECT, binary=True))
async def infer(request: Request, name: Name, patience: Timeout = None) -> Response:
    """With a model."""
    return await _infer(request, model_of(request, name), patience)


@router.post(
    "/v2/models/{name}/versions/{version}/infer",
    summary="Classify with a version of a model",
    **documented(OBJECT, binary=True),
)
async def infer_version(
    request: Request, name: Name, version: Version, patience: Timeout = None
) -> Response:
    """With a version of a model."""
    return await _infer(request, model_of(request, name, version), patience)


async def _infer(request: Request, model: Model, patience: float | None) -> Response:
    job = Job(request, model, model.top_k(None), patience)
    wanted: Wanted | None = None

    async def read(hold: Hold) -> list[Image]:
        nonlocal wanted
        check_encoding(request)
        head, tail = split(await read_body(request, hold), request.headers.get(HEADER))
        wanted = wanted_of(head, model)
        job.extras = wanted.extras
        return images_of(head, tail, model)

    rows, version = await job.all(read)
    if wanted is None:
        raise BadBody("the request asks for nothing")
    body, length = answer(model, version, rows, wanted)
    if length is None:
        return Response(body, headers={"content-type": "application/json"})
    kind = "application/octet-stream"
    return Response(body, headers={"content-type": kind, HEADER: str(length)})


def _metadata(model: Model) -> dict[str, Any]:
    shape = [-1, model.rule.height, model.rule.width, 3]
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": shape}],
        "outputs": [
            {"name": name, "datatype": "FP32", "shape": [-1, width]}
            for name, width in outputs_of(model).items()
        ],
    }


DIALECT = Dialect(
    "oip",
    router,
    re.compile("/v2(/|$)"),
    frozenset({"/v2", "/v2/health/live", "/v2/health/ready"}),
)
