"""The part of the report that stands beside the paper, and the one about growing resolution.

In: results of the kinds `compare`, `bare` and `sweep`. Out: blocks.
"""

from typing import Any

from loadtest.report import paper, plots
from loadtest.report.comparison import conditions, find, number
from loadtest.report.page import Block, Heading, Plot, Table, Text
from loadtest.results import Result

# What the paper's ratios are taken of, where a result has it.
FRAMEWORKS = {"pytorch": "PyTorch", "jax": "JAX"}


def bare_blocks(result: Result) -> list[Block]:
    """Bare PyTorch and JAX beside the paper, and the ratios of each."""
    columns = {
        FRAMEWORKS[name]: {(r["model"], r["image_size"]): r["best"] for r in found["results"]}
        for name, found in result["frameworks"].items()
    }
    rows, ratios = _beside_paper({
        name: {key: best["images_per_second"] for key, best in column.items()}
        for name, column in columns.items()
    })  # fmt: skip
    about = "; ".join(
        f"{FRAMEWORKS[name]}: {found['device']}, {found['precision']}"
        for name, found in result["frameworks"].items()
    )
    return [
        Heading("The paper's table: bare models"),
        *([] if result["complete"] else [Text("Broken off.", wrong=True)]),
        *conditions(result),
        Text(f"Images per second at the best batch size, without any server. {about}."),
        *_tables(list(columns), rows, ratios),
    ]


def compare_blocks(result: Result) -> list[Block]:
    """Images per second through the whole path beside the paper."""
    most = max((p["concurrency"] for p in result["points"] if not p["rate"]), default=0)
    columns: dict[str, dict[tuple[str, int], float | None]] = {}
    for way in ("gateway", "triton"):
        for model, about in result["models"].items():
            point = find(result, model, way, most)
            variant = about["provenance"].get("variant") or model
            if point:
                key = (variant, int(about["height"]))
                columns.setdefault(way, {})[key] = point["rate_measured"]
    rows, ratios = _beside_paper(columns)
    return [
        Heading("Beside the paper", 3),
        Text(
            f"Images per second, {most} requests at once, and the ratios of these medians (above, "
            "the ratio was taken in each round)."
        ),
        *_tables(list(columns), rows, ratios),
    ]


Rows = list[tuple[str, ...]]


def _beside_paper(
    columns: dict[str, dict[tuple[str, int], float | None]],
) -> tuple[Rows, Rows]:
    keys = list(dict.fromkeys(key for column in columns.values() for key in column))
    rates = [
        (key, [*(column.get(key) for column in columns.values()), paper.throughput(*key)])
        for key in keys
    ]
    rows, ratios = [], []
    first = rates[0][1] if rates else []
    for (variant, size), found in rates:
        name = f"{variant}@{size}"
        rows.append((name, *(number(rate, ".1f") for rate in found)))
        over = [
            rate / base if rate and base else None for rate, base in zip(found, first, strict=True)
        ]
        ratios.append((name, *(number(ratio, ".2f") for ratio in over)))
    return rows, ratios


def _tables(names: list[str], rows: Rows, ratios: Rows) -> list[Block]:
    head = ("model", *names, f"paper, TPUv3 core ({paper.SOURCE})")
    first = rows[0][0] if rows else ""
    return [Table(head, rows), Text(f"The same, divided by {first}:"), Table(head, ratios)]


def accuracy_blocks(results: list[Result]) -> list[Block]:
    """Published accuracy against published throughput, and against the measured one."""
    measured: dict[str, float] = {}
    for result in results:
        for model, about in result.get("models", {}).items():
            points = [p["rate_measured"] for p in result["points"] if p["model"] == model]
            variant = about["provenance"].get("variant") or model
            if points:
                measured[variant] = max(*points, measured.get(variant, 0.0))
    rows = [
        (
            row.name,
            row.pretraining,
            number(row.top1, ".2f"),
            f"{row.images_per_second:g}",
            number(measured.get(row.variant) if row.image_size == 224 else None, ".1f"),
        )
        for row in paper.PUBLISHED
    ]
    groups: dict[str, list[tuple[float, float, str]]] = {}
    for row in paper.PUBLISHED:
        if row.top1 is not None:
            family = row.name.partition("-")[0]
            at = (row.images_per_second, row.top1, row.name)
            groups.setdefault(f"{family}, {row.pretraining}", []).append(at)
    plot = plots.scatter(
        groups, "published images per second and TPUv3 core", "published top-1 on ImageNet, %"
    )
    head = ("model", "pre-trained on", "top-1, %, published", "images/s, published, TPUv3 core")
    return [
        Heading("Accuracy against throughput"),
        Text(
            f"Accuracies are **published** ({paper.SOURCE}), not measured here: they need the "
            "authors' weights, of which those trained on JFT-300M were never released."
        ),
        Table((*head, "images/s, measured here, best of all loads"), rows),
        Plot("accuracy-published", "Accuracy against throughput, as published", plot),
    ]


def sweep_blocks(result: Result) -> list[Block]:
    """Throughput at growing resolution, with the exponents."""
    lines: dict[str, list[tuple[float, float]]] = {}
    rows = []
    for row in result["rows"]:
        at: tuple[float, float] = (row["tokens"], row["cpu_ms"])
        lines.setdefault(row["model"], []).append(at)
        rows.append((
            row["model"],
            f"{row['image_size']}×{row['image_size']}",
            str(row["tokens"]),
            f"{row['images_per_second']:.2f}",
            f"{row['compute_ms']:.1f}",
            f"{row['cpu_ms']:.1f}",
            f"{row['cpu_ms'] / row['tokens'] * 1e3:.0f}",
        ))  # fmt: skip
    fits = {
        name: [(tokens, fit["scale"] * tokens ** fit["exponent"]) for tokens, _ in lines[name]]
        for name, kinds in result["fits"].items()
        if (fit := kinds.get("cpu_ms"))
    }
    plot = plots.curves(
        lines, "patches", "model's CPU time per image, ms", logarithmic=True, fits=fits
    )
    return [
        Heading("Growing resolution"),
        *([] if result["complete"] else [Text("Broken off.", wrong=True)]),
        *conditions(result),
        Text(
            "Time of the model for one image against the number of patches, by Triton's clock and "
            "by the CPU time of the model's process, which other work hardly changes. "
            "The exponent is the slope of the dashed line: 1 is linear growth, 2 quadratic. The "
            "quadratic share is what the squared term of a fit `a + b·S + c·S²` has of the time at "
            "the largest size. The Mixers have the hidden widths of the table whatever the number "
            "of patches, as in the paper where it calls them linear."
        ),
        Table(
            (
                "model",
                "image",
                "patches",
                "images/s",
                "model, ms",
                "model's CPU, ms",
                "CPU µs per patch",
            ),
            rows,
        ),
        _fits(result["fits"]),
        Plot(
            f"{result['file'].removesuffix('.json')}_growth",
            "CPU time of the model against patches",
            plot,
        ),
    ]


def _fits(fits: dict[str, Any]) -> Table:
    head = (
        *("model", "by", "exponent, all sizes", "exponent, upper half of the sizes"),
        "quadratic share",
    )
    rows = [
        (
            name,
            "CPU time" if kind == "cpu_ms" else "clock",
            f"{fit['exponent']:.2f}",
            f"{fit['upper_exponent']:.2f}",
            f"{fit['quadratic_share']:.0%}",
        )
        for name, kinds in fits.items()
        for kind, fit in kinds.items()
    ]
    return Table(head, rows)
