"""The commands that measure models without the gateway: bare, and at growing resolution."""

from pathlib import Path
from typing import Literal

from loadtest import bare as bare_models
from loadtest import results
from loadtest import sweep as growth
from loadtest.load import sample_images
from loadtest.progress import note, show
from loadtest.report import papers
from loadtest.report.page import Table, Text
from loadtest.usage import RESULTS, UsageError, check_positive, check_some


def bare(
    models: tuple[str, ...],
    *,
    batch_sizes: tuple[int, ...] = (1, 8, 32),
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    compiled: bool = False,
    windows: int = 3,
    seconds: float = 2.0,
    out: Path | None = None,
) -> int:
    """Measure the bare PyTorch and JAX models, on whatever device there is.

    Args:
        models: Variants of `python -m export --list`.
        batch_sizes: Images at once; the best one counts, as in the paper.
        precision: What is computed in; auto: bfloat16 on a GPU or TPU, else float32.
        compiled: Compile the PyTorch models with torch.compile; JAX always compiles.
        windows: How often each figure is measured; the median counts.
        seconds: How long a window is.
        out: The result file; by default docs/results/ with the conditions in its name.
    """
    check_some(models=models, batch_sizes=batch_sizes)
    check_positive(batch_sizes=batch_sizes, windows=(windows,), seconds=(seconds,))
    path = bare_models.run(
        models,
        batch_sizes,
        precision=precision,
        compiled=compiled,
        seconds=seconds,
        windows=windows,
        out=out,
    )
    for block in papers.bare_blocks(results.read(path)):
        match block:
            case Text():
                print(block.text)
            case Table():
                show(block)
    print(path)
    return 0


def sweep(
    *,
    models: tuple[str, ...] = ("mixer_s16", "vit_s16"),
    sizes: tuple[int, ...] = (112, 160, 224, 320, 448, 640),
    seconds: float = 3.0,
    rounds: int = 3,
    repository: Path = Path("build/sweep"),
    out: Path | None = None,
) -> int:
    """Measure how the time of a model grows with the number of patches, and fit exponents.

    Args:
        models: mixer_s16, mixer_b16, and ViTs of `python -m export --list`.
        sizes: Pixels per side, multiples of 16, at least four.
        seconds: How long a window is.
        rounds: How often each size is measured; the median counts.
        repository: Where the models are published; those that are there are used again.
        out: The result file; by default docs/results/ with the conditions in its name.
    """
    check_some(models=models)
    check_positive(seconds=(seconds,), rounds=(rounds,))
    if len(set(sizes)) < 4 or any(size % growth.PATCH or size <= 0 for size in sizes):
        raise UsageError(f"--sizes: expected at least four multiples of {growth.PATCH}")
    path = out or RESULTS / results.file_name("sweep", "fp32", *models)
    found = growth.run(
        models,
        sizes,
        repository=repository,
        sample_images=sample_images.load(None, 4),
        seconds=seconds,
        rounds=rounds,
        out=path,
    )
    for model, fit in found["fits"].items():
        for kind, found_fit in fit.items():
            name = "CPU time" if kind == "cpu_ms" else "time"
            print(f"{model}: {name} grows as patches^{found_fit['exponent']:.2f}")
    for failure in found["failures"]:
        note(f"FAILED: {failure}")
    print(path)
    return 0 if found["ok"] else 1
