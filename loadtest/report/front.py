"""The first page: the verdict in a few sentences, one plot, one table, and links to the rest.

In: all results. Out: blocks that fit on one screen.
"""

from collections.abc import Sequence

from loadtest.report import claims, growth, records, verdict
from loadtest.report.comparison import trouble
from loadtest.report.page import Block, Facts, Page, Table, Text
from loadtest.results import Result
from loadtest.stats.ratios import Ratio


def blocks(
    comparisons: Sequence[Result], sweeps: Sequence[Result], pages: Sequence[Page]
) -> list[Block]:
    """The first page; `pages` are the pages that it links to."""
    calm = [result for result in comparisons if not result["disturbed"] and result["ok"]]
    found: list[Block] = [block for result in (*comparisons, *sweeps) for block in trouble(result)]
    found += [Text(sentence) for sentence in sentences(calm, sweeps)]
    if calm:
        found += [plot for plot in (verdict.plot(calm[0], "verdict"),) if plot]
        found.append(table(calm))
    found.append(Facts([f"[{page.title}](results/{page.name}.md)" for page in pages]))
    found.append(Text(MADE_BY))
    return found


MADE_BY = (
    "Made by `python -m loadtest report` from the files in `results/`. A number holds for the "
    "machine and the settings at the end of its page, and for no others. In brackets are 95 % "
    "intervals, over the windows of a run. BiT-R50x1 costs about as much as a network of size S, "
    "and less than one of size B."
)


def sentences(comparisons: Sequence[Result], sweeps: Sequence[Result]) -> list[str]:
    """A sentence on speed for each machine, one on growth for each, and one on GPUs."""
    found = []
    for machine, results in verdict.by_machine(comparisons).items():
        vit, bit = (claims.ratios(results, family) for family in ("vit", "bit"))
        text = (
            f"**On {machine}, from a JPEG over HTTP to the answer, "
            f"{_against(vit, 'ViT of its size')}"
        )
        found.append(f"{text}{'; ' + _against(bit, 'BiT-R50x1') if bit else ''}.**")
    for machine, (result, *_) in verdict.by_machine(sweeps).items():
        fits = result["fits"]
        parts = [f"{model} {growth.exponent(fits[model]['cpu_ms'])}" for model in fits]
        found.append(
            f"**On {machine} the CPU time of an image grows with the number of patches as a power, "
            f"1 if it is linear: {'; '.join(parts)}.**"
        )
    low, high = records.gpu_range()
    found.append(
        f"**On GPUs with fused attention published results are between {low:.2f} and {high:.2f} "
        "times ViT of like size, by card and compiler: there it has no lead that holds "
        "([sources](results/claims.md)).**"
    )
    return found


def _against(found: Sequence[tuple[str, Ratio]], other: str) -> str:
    if not found:
        return f"nothing was measured against {other}"
    (name, ratio), *more = found
    text = f"{name.split()[0]} answers {ratio.text()}"
    text += "".join(f" and {name.split()[0]} {ratio.text()}" for name, ratio in more)
    return f"{text} times as many images per second as {other}"


def table(comparisons: Sequence[Result]) -> Table:
    """A row for each comparison."""
    rows = []
    for result in comparisons:
        first, *others = result["models"]
        main = verdict.main_point(result, first)
        if main is None:
            continue
        mean, low, high = verdict.rate_interval(main)
        by_family = {
            family: next((o for o in others if o.startswith(family)), "")
            for family in ("vit", "bit")
        }
        cells = []
        for other in by_family.values():
            ratio = verdict.faster(result, other) if other else None
            cells.append(f"{ratio.text()} {other}" if ratio else "–")
        rows.append(
            (
                first,
                verdict.precisions(result),
                verdict.machine(result),
                f"{mean:.1f} ({low:.1f} to {high:.1f})",
                *cells,
            )
        )
    head = ("model", "precision", "machine", "images/s", "times as fast as ViT", "as BiT")
    return Table(head, rows)
