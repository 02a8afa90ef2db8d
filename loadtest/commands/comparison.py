"""The commands that compare and report: what each flag means, and what is printed."""

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import tyro

from loadtest import results
from loadtest.compare import comparison as comparing
from loadtest.compare.comparison import Comparison, Plan
from loadtest.load import sample_images
from loadtest.machine import conditions
from loadtest.progress import note, show, step
from loadtest.report import comparison as report_compare
from loadtest.report import pages
from loadtest.servers import stack
from loadtest.usage import RESULTS, UsageError, check_positive, check_some


def compare(
    models: tuple[str, ...],
    *,
    concurrency: tuple[int, ...] = (1, 8),
    rates: tuple[float, ...] = (),
    seconds: float = 3.0,
    warm: float = 0.8,
    rounds: int = 3,
    max_rounds: int = 6,
    limit_minutes: float = 8.0,
    images: Path | None = None,
    images_sent: Annotated[int, tyro.conf.arg(name="pictures-sent")] = 16,
    repository: Path = Path("model_repository"),
    workers: int = 1,
    url: str = "",
    triton: str = "",
    out: Path | None = None,
) -> int:
    """Measure models against each other, each alone, under the same loads.

    Models that the repository lacks are made with random weights, which is as good for speed.

    Args:
        models: Their names in the model repository, or variants of `python -m export --list`. The
            first is what the others are compared with.
        concurrency: Requests under way at once, in the closed loop, one load for each number.
        rates: Requests per second in the open loop; 0.4 and 0.8 of what the slowest model can do
            if none is given.
        seconds: How long a window is.
        warm: Seconds before each window that do not count.
        rounds: The fewest windows of each point.
        max_rounds: The most, where the last three do not agree within 10 %.
        limit_minutes: No round begins that would end later.
        images: A folder of images to send; without, photo-like ones are made.
        images_sent: How many different ones.
        repository: Triton's model repository.
        workers: Processes of the gateway.
        url: Address of a gateway that runs already, which must serve these models.
        triton: With --url: HOST:PORT of its Triton's gRPC.
        out: The result file; by default docs/results/ with the conditions in its name.
    """
    began = time.monotonic()
    check_some(models=models, concurrency=concurrency)
    check_positive(concurrency=concurrency, seconds=(seconds,), rounds=(rounds,), rates=rates)
    check_positive(images_sent=(images_sent,), workers=(workers,))
    if max_rounds < rounds:
        raise UsageError(f"--max-rounds {max_rounds} is less than --rounds {rounds}")
    if len(set(models)) < len(models):
        raise UsageError("--models: one is there twice")
    sent = sample_images.load(images, images_sent)
    plan = Plan(
        models=models,
        concurrency=concurrency,
        rates=rates,
        seconds=seconds,
        warm=warm,
        min_rounds=rounds,
        max_rounds=max_rounds,
        until=began + 60 * limit_minutes,
        sample_images=tuple(sent),
    )
    settings = {
        "pictures": sample_images.describe(sent, images),
        "seconds_per_window": seconds,
        "warm_seconds": warm,
        "rounds": f"{rounds} to {max_rounds}",
        "workers": workers,
        "cores": conditions.cores(),
        "started_here": not url,
    }
    with _stack(repository, models, workers, url, triton) as running:
        comparison = comparing.run(plan, running, settings, out)
    return _conclude(comparison)


def report(
    results_in: tyro.conf.Positional[tuple[Path, ...]] = (RESULTS,),
    *,
    markdown: Path = Path("docs/results.md"),
    html: Path | None = None,
) -> int:
    """Make a page of Markdown, and with --html one HTML file, from results.

    Args:
        results_in: Result files, or folders of them.
        markdown: The page; its plots go into a folder beside it.
        html: One file with everything in it.
    """
    found = results.read_all(results_in)
    pages.write(found, markdown, html)
    print(f"{markdown}: {len(found)} results" + (f"; {html}" if html else ""))
    return 0


@contextlib.contextmanager
def _stack(
    repository: Path, models: tuple[str, ...], workers: int, url: str, triton: str
) -> Iterator[stack.Stack]:
    if bool(url) != bool(triton):
        raise UsageError("--url and --triton belong together")
    if url:
        yield stack.Stack(url, triton)
        return
    for model in models:
        if not re.fullmatch(r"[\w.-]+", model):
            raise UsageError(f"--models {model!r}: expected letters, digits, dots, - and _")
        with step(f"exporting {model}"):
            made = stack.export_missing(repository, model)
        if made:
            note(f"{repository / model}: made with random weights")
    with contextlib.ExitStack() as entered:
        with step("starting Triton and the gateway"):
            running = entered.enter_context(stack.running(repository, models, workers))
        yield running


def _conclude(comparison: Comparison) -> int:
    result = comparison.result
    for failure in result["failures"]:
        where = f"{failure['model']}, {failure['load']}"
        note(f"FAILED {failure['count']}×: {where}: {failure['error']}")
    if comparison.out is not None and result["points"]:
        html = comparison.out.with_suffix(".html")
        pages.write([results.read(comparison.out)], None, html)
        show(report_compare.throughput(result))
        show(report_compare.limits_reached(result))
        print(f"{html}: the whole of it, with plots")
    print(f"{comparison.out}: {'complete' if result['complete'] else 'broken off'}")
    return 0 if result["ok"] and result["complete"] else 1
