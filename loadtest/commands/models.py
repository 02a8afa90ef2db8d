"""The commands that measure models without the gateway: bare, and at growing resolution."""

from pathlib import Path
from typing import Literal

from loadtest import bare as bare_models
from loadtest import results
from loadtest import sweep as growth
from loadtest.load import sample_images
from loadtest.machine.disturbance import FOREIGN_LIMIT
from loadtest.progress import note, show
from loadtest.report import bare as bare_report
from loadtest.report.page import Table, Text
from loadtest.usage import (
    DISTURBED,
    UsageError,
    check_positive,
    check_some,
    models_folder,
    results_folder,
)


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
        out: The result file; by default one in
            ~/.local/share/mixer-serving/results with the conditions in its name.
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
    for block in bare_report.blocks(results.read(path)):
        match block:
            case Text():
                print(block.text)
            case Table():
                show(block)
    print(path)
    return 0


def sweep(
    *,
    models: tuple[str, ...] = ("mixer_s16", "mixer_s16_enlarged", "vit_s16", "bit_r50x1"),
    sizes: tuple[int, ...] = (112, 160, 224, 320, 448, 640),
    seconds: float = 3.0,
    rounds: int = 4,
    foreign_limit: float = FOREIGN_LIMIT,
    repository: Path | None = None,
    out: Path | None = None,
) -> int:
    """Measure how the time of a model grows with the number of patches, and fit exponents.

    Args:
        models: mixer_s16, mixer_b16, whose token-mixing MLP is as wide at every size;
            mixer_s16_enlarged, mixer_b16_enlarged, as fine-tuning at a higher resolution makes
            them; and ViTs and BiTs of `python -m export --list`.
        sizes: Pixels per side, multiples of 16, at least four.
        seconds: How long a window is.
        rounds: How often each size is measured; the median counts.
        foreign_limit: Share of all cores that other programs may take during a window; beyond it
            the window is repeated.
        repository: Where the models are published; those that are there are used again. By default
            ~/.cache/mixer-serving/models/sweep.
        out: The result file; by default one in
            ~/.local/share/mixer-serving/results with the conditions in its name.
    """
    check_some(models=models)
    check_positive(seconds=(seconds,), rounds=(rounds,))
    if len(set(sizes)) < 4 or any(size % growth.PATCH or size <= 0 for size in sizes):
        raise UsageError(f"--sizes: expected at least four multiples of {growth.PATCH}")
    path = out or results_folder() / results.file_name("sweep", "fp32", *models)
    run = growth.Sweep(models, sizes, repository or models_folder() / "sweep", path)
    run.run(sample_images.load(None, 2), seconds, rounds, foreign_limit)
    found = run.result
    for model, fits in found["fits"].items():
        measured, counted = fits["cpu_ms"], fits.get("flops")
        between = f" ({measured['low']:.2f} to {measured['high']:.2f})" if "low" in measured else ""
        theory = f", arithmetic as patches^{counted['exponent']:.2f}" if counted else ""
        print(f"{model}: CPU time grows as patches^{measured['exponent']:.2f}{between}{theory}")
    for failure in found["failures"]:
        note(f"FAILED: {failure}")
    if found["disturbed"]:
        note(f"DISTURBED: {found['disturbed']}")
    print(path)
    if not found["ok"]:
        return 1
    return DISTURBED if found["disturbed"] else 0
