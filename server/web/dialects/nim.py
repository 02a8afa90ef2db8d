"""Health and metadata as NVIDIA's NIM containers answer them: /v1/health/live, /v1/metadata.

In: a GET. Out: whether the server lives and is ready, its version, its models.
"""

import re

from fastapi import APIRouter, Request, Response

from server import __version__
from server.web.dialects.dialect import Dialect, documented, json_response
from server.web.state import state_of

router = APIRouter(tags=["NIM"])


@router.get("/v1/health/live", summary="Whether the process runs", **documented())
async def live() -> Response:
    """Whatever Triton does."""
    message = "Service is live."
    return json_response({"object": "health.response", "message": message, "status": "live"})


@router.get("/v1/health/ready", summary="Whether every model answers", **documented())
async def ready(request: Request) -> Response:
    """Or the problem that a request would get."""
    await state_of(request).check_ready()
    message = "Service is ready."
    return json_response({"object": "health.response", "message": message, "status": "ready"})


@router.get("/v1/version", summary="The version of the server", **documented())
async def version() -> Response:
    """Of the gateway."""
    return json_response({"release": __version__, "api": __version__})


@router.get("/v1/metadata", summary="The version and the models", **documented())
async def metadata(request: Request) -> Response:
    """The models by their names."""
    names = [entry.name for entry in state_of(request).models.entries()]
    models = [{"shortName": name, "modelUrl": ""} for name in names]
    return json_response({"version": __version__, "modelInfo": models, "assetInfo": []})


DIALECT = Dialect(
    "nim",
    router,
    re.compile("/v1/(health/|version$|metadata$)"),
    frozenset({"/v1/health/live", "/v1/health/ready"}),
)
