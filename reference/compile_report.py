"""The statements of the TPU's compiler, as a table for people and as JSON for programs.

In: `Compiled` rows, or the JSON files under docs/results. Out: a table on the terminal; Markdown
between two marks of a page.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from reference import checkpoint, paper
from reference.topology import Compiled

HEAD = ("model", "pixels", "slice", "devices", "program", "images per device")
HEAD_MEASURED = ("memory per device", "GFLOP per image", "collectives", "compiled in")
COMPARISON = ("model", "images per core", "compiler's optimum", "paper, measured", "share")
BEGIN, END = "<!-- generated: ", "<!-- end -->"


def cells(row: Compiled) -> tuple[str, ...]:
    """One row of the table."""
    found = ("does not fit" if "RESOURCE_EXHAUSTED" in (row.error or "") else "fails", "", "")
    if row.memory_bytes is not None and row.flops is not None:
        if row.collectives is None:
            collectives = "unknown"
        else:
            counts = (f"{count} {name}" for name, count in sorted(row.collectives.items()))
            collectives = ", ".join(counts) or "none"
        found = (
            f"{row.memory_bytes / 1e9:.2f} GB",
            f"{row.flops / row.batch_size / 1e9:.1f}",
            collectives,
        )
    return (
        row.model,
        str(row.image_size),
        row.topology,
        str(row.devices),
        row.kind,
        str(row.batch_size),
        *found,
        f"{row.compile_seconds:.0f} s",
    )


def show(rows: Sequence[Compiled], console: Console) -> None:
    """Print the rows as a table, then the reasons why some could not be compiled."""
    table = Table(title="Compiled, not run", title_justify="left")
    for column in (*HEAD, *HEAD_MEASURED):
        table.add_column(column)
    for row in rows:
        table.add_row(*cells(row))
    console.print(table)
    for row in rows:
        if row.error:
            console.print(f"{row.model} on {row.topology}: {row.error}", highlight=False)
        elif row.optimum:
            measured = paper.measured(row.model, row.image_size)
            beside = f"; the paper measured {measured:g} on a TPUv3 core" if measured else ""
            console.print(
                f"{row.model}: {row.optimum:.0f} images/s per device is the optimum in the "
                f"compiler's model, which is no measurement{beside}",
                highlight=False,
            )


def write(rows: Sequence[Compiled], out: Path, libtpu: str) -> None:
    """The rows as JSON, with the versions, atomically."""
    content: dict[str, Any] = {
        "jax": jax.__version__,
        "libtpu": libtpu,
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    checkpoint.write_text(out, json.dumps(content, indent=2) + "\n")


def read(file: Path) -> list[Compiled]:
    """The rows of a JSON file."""
    return [Compiled(**row) for row in json.loads(file.read_text())["rows"]]


def comparison(rows: Iterable[Compiled]) -> list[tuple[str, ...]]:
    """The v3 rows beside the paper's: for each network the batch size with the best optimum."""
    best: dict[tuple[str, int], Compiled] = {}
    for row in rows:
        if row.topology.startswith("v3") and row.kind == "forward" and row.optimum:
            key = (row.model, row.image_size)
            if key not in best or (best[key].optimum or 0) < row.optimum:
                best[key] = row
    table: list[tuple[str, ...]] = []
    for figure in paper.MEASURED:
        found = best.get((figure.variant, figure.image_size))
        if found is not None and found.optimum:
            measured = figure.images_per_second
            share = f"{measured / found.optimum:.0%}"
            table.append(
                (
                    figure.name,
                    str(found.batch_size),
                    f"{found.optimum:.0f}",
                    f"{measured:g}",
                    share,
                )
            )
    return table


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def refresh(page: Path) -> str:
    """The page, with each generated part made again from the JSON file that its mark names.

    A mark is `<!-- generated: FILE KIND -->`: FILE relative to the page, KIND compiled or
    comparison.
    """
    parts = page.read_text().split(BEGIN)
    new = [parts[0]]
    for part in parts[1:]:
        about, rest = part.split(" -->\n", 1)
        file, kind = about.split()
        rows = read(page.parent / file)
        if kind == "comparison":
            table = markdown(COMPARISON, comparison(rows))
        else:
            table = markdown((*HEAD, *HEAD_MEASURED), map(cells, rows))
        after = rest.split(END, 1)[1]
        new.append(f"{BEGIN}{about} -->\n\n{table}\n{END}{after}")
    return "".join(new)
