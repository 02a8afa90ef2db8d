"""The part of the report that is compared with the paper: bare models, and published accuracies.

In: results of the kinds `bare` and `compare`. Out: blocks.
"""

from collections.abc import Sequence

from loadtest.report import paper, plots
from loadtest.report.comparison import conditions, trouble
from loadtest.report.page import Block, Heading, Plot, Table, Text
from loadtest.report.tables import number
from loadtest.report.verdict import by_machine, main_point
from loadtest.results import Result

FRAMEWORKS = {"pytorch": "PyTorch", "jax": "JAX"}
Rates = dict[tuple[str, int], float | None]  # by variant and pixels per side


def blocks(result: Result) -> list[Block]:
    """Rates of bare PyTorch and JAX beside those of the paper, and each one's ratios of models."""
    columns: dict[str, Rates] = {
        FRAMEWORKS[name]: {
            (r["model"], r["image_size"]): r["best"]["images_per_second"] for r in found["results"]
        }
        for name, found in result["frameworks"].items()
    }
    about = "; ".join(
        f"{FRAMEWORKS[name]}: {found['device']}, {found['precision']}"
        for name, found in result["frameworks"].items()
    )
    return [
        Heading("Bare models, without any server"),
        *trouble(result | {"failures": []}),
        Text(
            f"Images per second at the best batch size, medians. {about}. These are other runtimes "
            "than the server's, so the rates and the ratios differ from those of the whole path."
        ),
        *_beside_paper(columns),
        conditions(result),
    ]


def served_blocks(result: Result) -> list[Block]:
    """Images per second through the whole path beside the paper."""
    served: Rates = {}
    for model, about in result["models"].items():
        point = main_point(result, model)
        variant = about["provenance"].get("variant") or model
        if point:
            served[variant, int(about["height"])] = point["rate_measured"]
    if not served:
        return []
    return [
        Heading("The whole path beside the paper", 3),
        *_beside_paper({"through the gateway": served}),
    ]


def _beside_paper(columns: dict[str, Rates]) -> list[Block]:
    keys = list(dict.fromkeys(key for column in columns.values() for key in column))
    rates = [
        [*(column.get(key) for column in columns.values()), paper.throughput(*key)] for key in keys
    ]
    rows, ratios = [], []
    for (variant, size), found in zip(keys, rates, strict=True):
        name = f"{variant}@{size}"
        rows.append((name, *(number(rate, ".1f") for rate in found)))
        over = [
            rate / base if rate and base else None
            for rate, base in zip(found, rates[0], strict=True)
        ]
        ratios.append((name, *(number(ratio, ".2f") for ratio in over)))
    head = ("model", *columns, f"paper, TPUv3 core ({paper.SOURCE})")
    first = rows[0][0] if rows else ""
    return [Table(head, rows), Text(f"The same, divided by {first}:"), Table(head, ratios)]


def published_blocks(results: Sequence[Result]) -> list[Block]:
    """Published accuracy against published throughput, and against the measured one."""
    machines = by_machine(results)
    measured = [_measured(each) for each in machines.values()]
    rows = [
        (
            row.name,
            row.pretraining,
            number(row.top1, ".2f"),
            f"{row.images_per_second:g}",
            *(
                number(rates.get(row.variant) if row.image_size == 224 else None, ".1f")
                for rates in measured
            ),
        )
        for row in paper.PUBLISHED
    ]
    groups: dict[str, list[tuple[float, float, str]]] = {}
    for row in paper.PUBLISHED:
        if row.top1 is not None:
            at = (row.images_per_second, row.top1, row.name.partition("-")[2])
            groups.setdefault(row.name.partition("-")[0], []).append(at)
    svg = plots.scatter(
        groups, "Accuracy against throughput, as published", f"{paper.SOURCE}; TPUv3",
        "images per second and TPUv3 core (logarithmic)", "top-1 on ImageNet, %",
    )  # fmt: skip
    about = (
        "Points of Mixers, ViTs and BiTs: in each family accuracy falls as throughput rises, from "
        "88 % at 15 images per second to 69 % at 11,489; Mixers lie among the others"
    )
    head = ("model", "pre-trained on", "top-1, %, published", "images/s, published, TPUv3 core")
    return [
        Heading("Published accuracy against throughput"),
        Text(
            f"Accuracies are **published** ({paper.SOURCE}), not measured here: they need the "
            "authors' weights, of which those trained on JFT-300M were never released."
        ),
        Plot("accuracy-published", about, svg),
        Table((*head, *(f"images/s, measured on {each}, FP32" for each in machines)), rows),
    ]


def _measured(results: Sequence[Result]) -> dict[str, float]:
    """The best rate of each variant in FP32, through the whole path."""
    found: dict[str, float] = {}
    for result in results:
        for model, about in result["models"].items():
            point = main_point(result, model)
            variant = about["provenance"].get("variant") or model
            if point and about["provenance"].get("precision") == "fp32":
                found[variant] = max(point["rate_measured"], found.get(variant, 0.0))
    return found
