"""The part of the report about growing resolution.

In: results of the kind `sweep`. Out: blocks: the measured exponents, beside the exponents of the
arithmetic.
"""

from typing import Any

from loadtest.report import plots
from loadtest.report.comparison import conditions, trouble
from loadtest.report.page import Block, Details, Heading, Plot, Table, Text
from loadtest.report.verdict import machine, subtitle
from loadtest.results import Result

ABOUT = (
    "CPU time of the model's process for one image, against the number of patches. An exponent of "
    "1 is linear growth, 2 quadratic. A `mixer` has the hidden width of its token-mixing MLP "
    "whatever the number of patches, as the paper has it where it calls the cost linear. One that "
    "is `enlarged` is what fine-tuning at a higher resolution makes of a trained one: its hidden "
    "width grows with the patches, and its FLOPs with a greater exponent than those of a ViT. BiT "
    "is a convolutional network, whose cost grows with the pixels."
)


def blocks(result: Result) -> list[Block]:
    """All blocks of one sweep."""
    models = list(dict.fromkeys(row["model"] for row in result["rows"]))
    found: list[Block] = [
        Heading(f"Growing resolution on {machine(result)}: {', '.join(models)}"),
        *trouble(result),
    ]
    if not result["rows"]:
        return [*found, conditions(result)]
    return [
        *found,
        Text(sentence(result)),
        exponents(result),
        _plot(result, models),
        Text(ABOUT),
        Details("Every size", [_sizes(result)]),
        conditions(result),
    ]


def sentence(result: Result) -> str:
    """A sentence with the exponent of each model, with intervals."""
    parts = [
        f"{model} as patches to the power {exponent(fits['cpu_ms'])}{_theory(fits)}"
        for model, fits in result["fits"].items()
    ]
    return f"The CPU time grows so: {'; '.join(parts)}." if parts else ""


def exponent(fit: dict[str, float]) -> str:
    """An exponent with its interval."""
    between = f" ({fit['low']:.2f} to {fit['high']:.2f})" if "low" in fit else ""
    return f"{fit['exponent']:.2f}{between}"


def _theory(fits: dict[str, dict[str, float]]) -> str:
    return f" (arithmetic: {fits['flops']['exponent']:.2f})" if "flops" in fits else ""


def exponents(result: Result) -> Table:
    """Measured exponents beside those of the arithmetic."""
    rows = []
    for model, fits in result["fits"].items():
        cpu, flops = fits["cpu_ms"], fits.get("flops")
        rows.append((
            model,
            exponent(cpu),
            f"{flops['exponent']:.2f}" if flops else "–",
            f"{cpu['upper_exponent']:.2f}",
            f"{flops['upper_exponent']:.2f}" if flops else "–",
            f"{cpu['quadratic_share']:.0%}",
            f"{flops['quadratic_share']:.0%}" if flops else "–",
            exponent(fits["compute_ms"]),
        ))  # fmt: skip
    head = (
        *("model", "exponent of CPU time (95 %)", "by the FLOPs"),
        *("the same, upper half of the sizes", "by the FLOPs"),
        *("share of the quadratic part at the largest", "by the FLOPs", "exponent by the clock"),
    )
    return Table(head, rows)


def _plot(result: Result, models: list[str]) -> Plot:
    measured: dict[str, plots.Series] = {}
    theory: dict[str, plots.Series] = {}
    for model in models:
        rows = sorted((r for r in result["rows"] if r["model"] == model), key=lambda r: r["tokens"])
        tokens = [float(row["tokens"]) for row in rows]
        spread = [_spread(row) for row in rows]
        measured[model] = plots.Series(
            tokens, [row["cpu_ms"] for row in rows], [s[0] for s in spread], [s[1] for s in spread]
        )
        if all(row["flops"] for row in rows):
            theory[model] = plots.Series(tokens, [row["flops"] for row in rows])
    svg = plots.growth(measured, theory, "CPU time against resolution", subtitle(result))
    name = f"{result['file'].removesuffix('.json')}_growth"
    return Plot(name, f"Logarithmic curves of CPU time against patches. {sentence(result)}", svg)


def _spread(row: dict[str, Any]) -> tuple[float, float]:
    found = [w["cpu_ms"] for w in row["windows"] if not w["disturbed"]]
    return min(found), max(found)


def _sizes(result: Result) -> Table:
    rows = [
        (
            row["model"],
            f"{row['image_size']}×{row['image_size']}",
            str(row["tokens"]),
            f"{row['flops'] / 1e9:.2f}" if row["flops"] else "–",
            f"{row['images_per_second']:.2f}",
            f"{row['compute_ms']:.1f}",
            f"{row['cpu_ms']:.1f}",
            f"{row['cpu_ms'] / row['tokens'] * 1e3:.0f}",
        )
        for row in result["rows"]
    ]
    head = (
        *("model", "image", "patches", "GFLOP", "images/s", "model, ms", "model's CPU, ms"),
        "CPU µs per patch",
    )
    return Table(head, rows)
