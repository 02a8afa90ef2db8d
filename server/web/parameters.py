"""What a request asks for in its query and its headers: one pydantic model for each.

In: a query string, a header. Out: `Asked`, seconds; or `BadParameter` that says what is wrong and
what is right. FastAPI reads the same models for the OpenAPI document, and for requests that do not
take the fast path.
"""

import functools
import math
import re
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Header
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)
from pydantic.json_schema import SkipJsonSchema

from contracts.repository import LOGITS
from server.engines.engine import Engine
from server.engines.model import Model, Probabilities
from server.problems import BadParameter
from server.serving.predictions import Prediction

WHOLE_NUMBER = re.compile("-?[0-9]{1,9}")
TIMEOUT = "X-Request-Timeout"


def whole_number(given: object) -> int:
    """A whole number from its digits; the pydantic model checks the range."""
    text = str(given)
    if not WHOLE_NUMBER.fullmatch(text):
        raise ValueError(f"is {text[:20]!r}, expected a whole number from 1")
    return int(text)


def positive_seconds(given: object) -> float:
    """A number of seconds from its digits."""
    seconds = _number(given)
    if not 0 < seconds < math.inf:
        raise ValueError(
            f"is {str(given)[:20]!r}, expected a positive number of seconds such as 2.5"
        )
    return seconds


def probability(given: object) -> float:
    """A probability from its digits."""
    value = _number(given)
    if not 0 <= value <= 1:
        raise ValueError(f"is {str(given)[:20]!r}, expected a number from 0 to 1")
    return value


def _number(given: object) -> float:
    """The number of a text; NaN if it is none."""
    try:
        return float(str(given))
    except ValueError:
        return math.nan


Probability = Annotated[
    float,
    BeforeValidator(probability),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1}),
]


def flag(given: object) -> bool:
    """True or false from its text."""
    text = str(given)
    if text not in {"true", "false"}:
        raise ValueError(f"is {text[:20]!r}, expected true or false")
    return text == "true"


Flag = Annotated[bool, BeforeValidator(flag), WithJsonSchema({"type": "boolean"})]
TopK = Annotated[
    int,
    BeforeValidator(whole_number),
    WithJsonSchema({"type": "integer", "minimum": 1}),
]
Timeout = Annotated[
    Annotated[
        float,
        BeforeValidator(positive_seconds),
        WithJsonSchema({"type": "number", "exclusiveMinimum": 0}),
    ]
    | SkipJsonSchema[None],
    Header(
        alias=TIMEOUT,
        description="Seconds after which the answer is of no use any more; the server's default "
        "if absent, at most its maximum. A request that cannot be answered in time gets 429 at "
        "once, one that was not answered in time 504.",
    ),
]
_timeout: TypeAdapter[float | None] = TypeAdapter(Timeout)


class Asked(BaseModel):
    """The query of a request to classify."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[
        str | SkipJsonSchema[None],
        Field(
            description="Name of the model; the server's default if absent. GET /models lists them."
        ),
    ] = None
    top_k: Annotated[
        TopK | SkipJsonSchema[None],
        Field(description="How many classes to answer with, 1 to all; 5 if absent (all if fewer)."),
    ] = None

    threshold: Annotated[
        Probability | SkipJsonSchema[None],
        Field(
            description="Leave out classes that are less probable; without top_k all that are not. "
            "For models of several labels, which have a probability each."
        ),
    ] = None

    unsure: Annotated[
        Flag | SkipJsonSchema[None],
        Field(
            description="Say of each image whether it is unlike what the model was trained on. For "
            "models whose largest logit tells that, as their provenance says."
        ),
    ] = None

    def extras(self, model: Model) -> tuple[str, ...]:
        """The outputs that the answer needs beside the probabilities. Raises `BadParameter`."""
        if not self.unsure:
            return ()
        if model.unsure_below is None:
            raise BadParameter(
                f"unsure is asked for, and model {model.name!r} cannot tell: its export measured "
                "no score that does (--held-back and --others)"
            )
        return (LOGITS,)

    def verdict(self, model: Model, row: Probabilities) -> bool | None:
        """Whether the model is unsure of the image with this answer; None if that is not asked."""
        if not self.unsure or model.unsure_below is None:
            return None
        return bool(model.split(row, (LOGITS,))[LOGITS].max() < model.unsure_below)

    def resolve(self, models: Engine) -> tuple[Model, int]:
        """The model and how many classes. Raises `BadParameter`, or as `Engine.get`."""
        model = models.get(models.default if self.model is None else self.model)
        every = self.threshold is not None and self.top_k is None
        return model, model.classes if every else model.top_k(self.top_k)

    def wanted(self, predictions: list[Prediction]) -> list[Prediction]:
        """The predictions that are probable enough."""
        least = self.threshold
        if least is None:
            return predictions
        return [each for each in predictions if each.probability >= least]


@functools.lru_cache(maxsize=64)
def asked(query: bytes) -> Asked:
    """What a query asks for. Raises `BadParameter`."""
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    given = dict(pairs)
    if len(given) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        if twice in Asked.model_fields:
            raise BadParameter(f"{twice} is given twice, once is expected")
    try:
        return Asked.model_validate(given)
    except ValidationError as error:
        raise problem_of(error.errors()) from None


def timeout(given: str | None) -> float | None:
    """The seconds that a header asks for. Raises `BadParameter`."""
    if given is None:
        return None
    try:
        return _timeout.validate_python(given)
    except ValidationError as error:
        raise BadParameter(f"{TIMEOUT} {error.errors()[0]['ctx']['error']}") from None


NAMES = {*Asked.model_fields, TIMEOUT}


def problem_of(errors: Sequence[Any]) -> BadParameter:
    """What pydantic found wrong with a query, in a sentence."""
    first = errors[0]
    name = str(next((part for part in first["loc"] if part in NAMES), first["loc"][-1]))
    if first["type"] == "extra_forbidden":
        known = ", ".join(Asked.model_fields)
        return BadParameter(f"there is no parameter {name!r}; there are: {known}")
    reason = first.get("ctx", {}).get("error", f"is not usable: {first['msg']}")
    return BadParameter(f"{name} {reason}")
