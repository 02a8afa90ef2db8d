"""`python -m server similar FOLDER…`: near-duplicates and nearest neighbours among images.

In: files, folders or patterns, and the gateway's address. Out: pairs of images that are nearly the
same, and for each image those that look most like it, by the cosine of the embeddings that a model
gives through POST /embed; or with --json one line of JSON per image. Exits as `classify` does.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field
from pydantic_settings import SettingsConfigDict
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from server.client import (
    Answer,
    Ask,
    NoAnswerError,
    answers,
    files_of,
    options_of,
    post,
    problems,
    status_of,
)

Vectors = npt.NDArray[np.float32]
BYTES = "application/octet-stream"
# Rows whose cosines with all others are held at once: 10,000 images take 40 MB.
BLOCK = 1024


class Similar(Ask):
    """Find near-duplicates and nearest neighbours among images, through a running gateway."""

    model_config = SettingsConfigDict(cli_prog_name="python -m server similar")

    neighbours: int = Field(3, ge=1, description="Most similar images to name for each.")
    duplicates: float = Field(
        0.95, ge=-1, le=1, description="Cosine from which two images are nearly the same."
    )


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    options = options_of(Similar, arguments)
    files = [] if options is None else files_of(options)
    if options is None or not files:
        return 2
    if len(files) == 1:
        message = f"error: {files[0]} is the only image; two or more are needed to compare"
        print(message, file=sys.stderr)
        return 2
    with answers(files, options, embed, "Embedding") as each:
        results = [*each]
    found = [result for result in results if "error" not in result]
    widths = {len(result["embedding"]) for result in found}
    if len(widths) > 1:  # the model was replaced meanwhile
        print(f"embeddings of {widths} dimensions came; ask again", file=sys.stderr)
        return 1
    if found:
        vectors = np.stack([result["embedding"] for result in found])
        nearest = neighbours(vectors, options.neighbours, options.duplicates)
        names = [result["file"] for result in found]
        for result, those in zip(found, nearest, strict=True):
            result["neighbours"] = [
                {
                    "file": names[index],
                    "cosine": round(cosine, 4),
                    "duplicate": cosine >= options.duplicates,
                }
                for index, cosine in those
            ]
            del result["embedding"]
    if options.as_json:
        for result in results:
            print(json.dumps(result, ensure_ascii=False))
    else:
        show(results)
    return status_of(results, options)


def embed(file: Path | str, options: Similar) -> Answer:
    """A file's name and its embedding, float32[D]; or its name and an `error`."""
    try:
        body = post(file, options, "/embed", {}, BYTES)
        return {"file": str(file), "embedding": np.frombuffer(body, "<f4")}
    except (NoAnswerError, ValueError) as error:
        return {"file": str(file), "error": str(error)}


def neighbours(vectors: Vectors, most: int, duplicates: float) -> list[list[tuple[int, float]]]:
    """For each row of float32[N, D] the other rows with the largest cosines, largest first.

    `most` of them, and all whose cosine is at least `duplicates`.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    most = min(most, len(vectors) - 1)
    found = []
    for start in range(0, len(vectors), BLOCK):
        cosines = directions[start : start + BLOCK] @ directions.T
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -np.inf
        order = np.argsort(-cosines, axis=1, kind="stable")[:, : len(vectors) - 1]
        for row, best in zip(cosines, order, strict=True):
            kept = max(most, int((row >= duplicates).sum()))
            found.append([(int(i), float(row[i])) for i in best[:kept]])
    return found


def show(results: Sequence[Answer]) -> None:
    """Tables of the near-duplicates, if there are some, and of the neighbours; then the errors."""
    console = Console()
    pairs = {
        tuple(sorted((result["file"], other["file"]))): other["cosine"]
        for result in results
        for other in result.get("neighbours", [])
        if other["duplicate"]
    }
    if pairs:
        table = Table("nearly the same", "", "cosine", highlight=False)
        for (one, other), cosine in sorted(pairs.items(), key=lambda item: -item[1]):
            table.add_row(escape(one), escape(other), f"{cosine:.4f}")
        console.print(table)
    table = Table("image", "looks like", "cosine", highlight=False)
    for result in results:
        name = escape(result["file"])
        for other in result.get("neighbours", []):
            table.add_row(name, escape(other["file"]), f"{other['cosine']:.4f}")
            name = ""
    if table.row_count:
        console.print(table)
    for line in problems(results):
        console.print(line, soft_wrap=True, highlight=False)
