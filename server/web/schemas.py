"""The answers in JSON, as pydantic models: what an endpoint returns and what /openapi.json says.

In: plain values. Out: JSON by pydantic's own serialiser, and the schemas of the OpenAPI document.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict, JsonValue
from pydantic.json_schema import SkipJsonSchema

from server import __version__
from server.problems import CLASSES, UnsupportedType
from server.serving.predictions import Prediction

PREDICTIONS: list[JsonValue] = [
    {"label": "cat", "index": 3, "probability": 0.9700001},
    {"label": "dog", "index": 5, "probability": 0.0210042},
]
MODEL: JsonDict = {
    "name": "mixer_cifar10",
    "version": "1",
    "state": "ready",
    "default": True,
    "input": {"height": 32, "width": 32},
    "classes": 10,
    "max_batch_size": 32,
    "embedding": 128,
    "provenance": {"family": "mixer", "precision": "fp32"},
}


class Answer(BaseModel):
    """What all answers have in common: nothing in them that is not declared here."""

    model_config = ConfigDict(extra="forbid")


class ProblemSummary(Answer):
    """An error as RFC 9457 defines it. `type` tells the problems apart."""

    type: Annotated[str, Field(json_schema_extra={"enum": sorted(c.type_uri() for c in CLASSES)})]
    title: str
    status: int
    detail: str


class ProblemDocument(ProblemSummary):
    """An error as RFC 9457 defines it. `type` tells the problems apart."""

    model_config = ConfigDict(title="Problem")

    request_id: Annotated[str, Field(description="Under which the gateway logged the request.")]


Unsure = Annotated[
    bool | SkipJsonSchema[None],
    Field(
        exclude_if=lambda value: value is None,
        description="Whether the image is unlike what the model was trained on; only if asked for.",
    ),
]


class Classification(Answer):
    """What POST /classify answers."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"model": "mixer_cifar10", "version": "1", "predictions": PREDICTIONS}
        }
    )

    model: str
    version: str
    predictions: list[Prediction]
    unsure: Unsure = None


class Classified(Answer):
    """An image of several that was classified."""

    filename: str | None
    predictions: list[Prediction]
    unsure: Unsure = None


class Refused(Answer):
    """An image of several that was not."""

    filename: str | None
    error: ProblemSummary


class BatchClassification(Answer):
    """What POST /classify/batch answers."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "mixer_cifar10",
                "version": "1",
                "results": [
                    {"filename": "cat.jpg", "predictions": PREDICTIONS},
                    {
                        "filename": "notes.txt",
                        "error": {**UnsupportedType("the bytes begin like no image").document()},
                    },
                ],
            }
        }
    )

    model: str
    version: str
    results: Annotated[list[Classified | Refused], Field(description="In the order sent.")]


EMBEDDING: list[JsonValue] = [0.25, -1.5, 0.125]


class Embedded(Answer):
    """An image that has an embedding."""

    filename: str | None
    embedding: Annotated[list[float], Field(description="float32, as many as `dimensions`.")]


class Embeddings(Answer):
    """What POST /embed answers."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "mixer_cifar10",
                "version": "1",
                "dimensions": 3,
                "results": [{"filename": "cat.jpg", "embedding": EMBEDDING}],
            }
        }
    )

    model: str
    version: str
    dimensions: Annotated[int, Field(ge=1)]
    results: Annotated[list[Embedded | Refused], Field(description="In the order sent.")]


class InputSize(Answer):
    """Of the pixels that a model takes."""

    height: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]


class ModelSummary(Answer):
    """A model that Triton has; of one that is unavailable only the first members and `reason`."""

    model_config = ConfigDict(json_schema_extra={"example": MODEL})

    name: str
    version: str
    state: Literal["ready", "unavailable"]
    default: Annotated[bool, Field(description="Serves requests that name no model.")]
    reason: Annotated[str | SkipJsonSchema[None], Field(description="Why it is unavailable.")] = (
        None
    )
    input: InputSize | SkipJsonSchema[None] = None
    classes: Annotated[int, Field(ge=1)] | SkipJsonSchema[None] = None
    max_batch_size: int | SkipJsonSchema[None] = None
    embedding: Annotated[
        int | SkipJsonSchema[None],
        Field(description="Dimensions of the embeddings of POST /embed; absent where it has none."),
    ] = None
    provenance: dict[str, str] | SkipJsonSchema[None] = None
    changed: Annotated[
        bool | SkipJsonSchema[None],
        Field(
            description="Its graph is not the one that was exported; --allow-changed-models serves "
            "it all the same."
        ),
    ] = None
    labels: Annotated[
        list[str] | SkipJsonSchema[None], Field(description="Only for a single model.")
    ] = None


class Models(Answer):
    """What GET /models answers."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"default": "mixer_cifar10", "models": [MODEL]}}
    )

    default: str
    models: list[ModelSummary]


class Live(Answer):
    """The process runs."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"status": "live", "version": __version__}}
    )

    status: Literal["live"] = "live"
    version: str = Field(default=__version__, description="Of the gateway.")


class Ready(Answer):
    """Every model answered."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"status": "ready", "model": "mixer_cifar10", "version": "1"}}
    )

    status: Literal["ready"] = "ready"
    model: Annotated[str, Field(description="The default one.")]
    version: str
