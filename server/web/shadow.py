"""GET /shadow: how a second model compares with the one that users get, for all workers together.

In: the metrics of the comparisons (server/serving/shadow.py), and the last examples of each worker,
which each writes into the folder of the metrics. Out: a report. It names requests by their ids; no
image is kept anywhere.
"""

import dataclasses
import json
import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Request
from prometheus_client.registry import CollectorRegistry
from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from server.observability import metrics
from server.problems import NotFound, Unauthorized
from server.serving.shadow import MOST_EXAMPLES, Example
from server.web import openapi
from server.web.schemas import Answer
from server.web.state import state_of

router = APIRouter()
Numbers = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class FirstClass(Answer):
    """What a model named first."""

    label: str
    probability: Annotated[float, Field(ge=0, le=1)]


class Disagreement(Answer):
    """A request for which the models name different classes first."""

    request_id: str
    served: FirstClass
    shadow: FirstClass
    divergence: Annotated[float, Field(ge=0, le=1, description="Jensen-Shannon, in bits.")]
    time: Annotated[float, Field(description="Seconds since 1970.")]


class Latency(Answer):
    """Of inference, with the wait in the queue, in milliseconds; quantiles from a histogram."""

    mean: float
    p50: float
    p99: float


class Comparison(Answer):
    """What GET /shadow tells of a pair of models."""

    model: Annotated[str, Field(description="The one that users got.")]
    candidate: Annotated[str, Field(description="The one that got copies.")]
    copies: Annotated[dict[str, int], Field(description="By what became of them.")]
    compared: int
    agreement: Annotated[
        float | None, Field(ge=0, le=1, description="The share with the same first class.")
    ]
    divergence: Annotated[float | None, Field(description="Jensen-Shannon, in bits; the mean.")]
    difference: Annotated[
        float | None, Field(description="Mean absolute difference of the probabilities.")
    ]
    served_milliseconds: Latency | None
    shadow_milliseconds: Latency | None
    examples: Annotated[list[Disagreement], Field(description="The last, newest first.")]


_LATENCY: JsonDict = {"mean": 2.1, "p50": 2.0, "p99": 4.8}
_EXAMPLE: JsonDict = {
    "share": 0.05,
    "comparisons": [
        {
            "model": "mixer_cifar10",
            "candidate": "candidate",
            "copies": {"compared": 1200, "busy": 3},
            "compared": 1200,
            "agreement": 0.9725,
            "divergence": 0.0131,
            "difference": 0.0062,
            "served_milliseconds": _LATENCY,
            "shadow_milliseconds": _LATENCY,
            "examples": [
                {
                    "request_id": "6f1c2b7e5d3a4c4f9b1e8a7d2c3f4e5a",
                    "served": {"label": "cat", "probability": 0.52},
                    "shadow": {"label": "dog", "probability": 0.61},
                    "divergence": 0.21,
                    "time": 1790000000.0,
                }
            ],
        }
    ],
}


class ShadowReport(Answer):
    """What GET /shadow answers."""

    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE})

    share: Annotated[float, Field(gt=0, le=1, description="Of requests, that are copied.")]
    comparisons: list[Comparison]


@router.get(
    "/shadow",
    summary="How the second model compares with the default one",
    responses=openapi.responses(ShadowReport, Unauthorized, NotFound),
    openapi_extra=openapi.SECURITY,
)
async def shadow(request: Request) -> ShadowReport:
    """Since the gateway's start, for each pair of models that were compared."""
    state = state_of(request)
    if state.shadow is None:
        raise NotFound("no model shadows the default one; --shadow candidate:5% lets one")
    examples = gathered(list(state.shadow.examples))
    return ShadowReport(share=state.shadow.share, comparisons=report(metrics.together(), examples))


def report(registry: CollectorRegistry, examples: list[dict[str, Any]]) -> list[Comparison]:
    """For each pair of models in the metrics."""
    numbers: Numbers = {}
    for family in registry.collect():
        if family.name.startswith("mixer_shadow_"):
            for sample in family.samples:
                numbers[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    copies: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for (name, labels), value in numbers.items():
        if name == "mixer_shadow_copies_total":
            told = dict(labels)
            copies[told["model"], told["candidate"]][told["outcome"]] = int(value)
    return [_comparison(numbers, pair, copies[pair], examples) for pair in sorted(copies)]


def _comparison(
    numbers: Numbers,
    pair: tuple[str, str],
    copies: dict[str, int],
    examples: list[dict[str, Any]],
) -> Comparison:
    compared = copies.get("compared", 0)
    mine = [each for each in examples if (each["model"], each["candidate"]) == pair]

    def number(name: str, **more: str) -> float:
        labels = {"model": pair[0], "candidate": pair[1], **more}
        return numbers.get((f"mixer_shadow_{name}", tuple(sorted(labels.items()))), 0.0)

    def share(name: str) -> float | None:
        return round(number(name) / compared, 7) if compared else None

    return Comparison(
        model=pair[0],
        candidate=pair[1],
        copies=copies,
        compared=compared,
        agreement=share("agreed_total"),
        divergence=share("divergence_sum"),
        difference=share("difference_sum"),
        served_milliseconds=_latency(number, "served"),
        shadow_milliseconds=_latency(number, "shadow"),
        examples=[
            Disagreement.model_validate({name: each[name] for name in Disagreement.model_fields})
            for each in mine
        ],
    )


def _latency(number: Callable[..., float], side: str) -> Latency | None:
    name = "inference_seconds"
    count = number(f"{name}_count", side=side)
    if not count:
        return None
    edges = [0.0, *metrics.SECONDS]
    below = [0.0] + [
        number(f"{name}_bucket", side=side, le=str(float(edge))) for edge in metrics.SECONDS
    ]

    def quantile(share: float) -> float:
        """As histogram_quantile of Prometheus: evenly within the bucket it falls into."""
        wanted = share * count
        for at in range(1, len(edges)):
            if below[at] >= wanted:
                inside = below[at] - below[at - 1]
                part = (wanted - below[at - 1]) / inside if inside else 1.0
                return edges[at - 1] + part * (edges[at] - edges[at - 1])
        return edges[-1]

    mean = number(f"{name}_sum", side=side) / count
    return Latency(
        **{
            name: round(1000 * seconds, 3)
            for name, seconds in (("mean", mean), ("p50", quantile(0.5)), ("p99", quantile(0.99)))
        }
    )


def keep(examples: list[Example]) -> None:
    """Write this worker's examples beside its metrics, where there are several workers."""
    folder = os.environ.get(metrics.FOLDER_VARIABLE)
    if folder is None:
        return
    path = Path(folder) / f"shadow_{os.getpid()}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps([dataclasses.asdict(each) for each in examples]))
    partial.replace(path)


def gathered(own: list[Example]) -> list[dict[str, Any]]:
    """The last examples of all workers, newest first."""
    folder = os.environ.get(metrics.FOLDER_VARIABLE)
    found = [dataclasses.asdict(each) for each in own]
    if folder is not None:
        files = Path(folder).glob("shadow_*.json")
        found = [each for file in files for each in json.loads(file.read_text())]
    return sorted(found, key=lambda each: -float(each["time"]))[:MOST_EXAMPLES]
