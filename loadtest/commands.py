"""The commands of `python -m loadtest`: what each flag means, and what is printed."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, get_args

import tyro

from loadtest import bare as bare_models
from loadtest import compare as comparing
from loadtest import evaluate as accuracy
from loadtest import pictures, results, stack, truth
from loadtest import report as reporting
from loadtest import sweep as growth
from loadtest import tune as tuner
from loadtest.compare import Comparison, Plan
from loadtest.progress import note
from loadtest.results import ResultsError
from loadtest.target import TargetError

RESULTS = Path("docs/results")
Knob = Literal["instances", "threads", "max_batch_size", "max_queue_delay_microseconds"]


class UsageError(ValueError):
    """The command line asks for something that cannot be; the message is one sentence."""


USER_MISTAKES = (UsageError, ResultsError, pictures.PicturesError, stack.StackError, TargetError)


def compare(
    models: tuple[str, ...],
    *,
    concurrency: tuple[int, ...] = (1, 8),
    rates: tuple[float, ...] = (),
    seconds: float = 4.0,
    warm: float = 1.0,
    rounds: int = 3,
    max_rounds: int = 6,
    limit_minutes: float = 9.0,
    images: Path | None = None,
    pictures_sent: int = 16,
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
        images: A folder of pictures to send; without, photo-like ones are made.
        pictures_sent: How many different ones.
        repository: Triton's model repository.
        workers: Processes of the gateway.
        url: Address of a gateway that runs already, which must serve these models.
        triton: With --url: HOST:PORT of its Triton's gRPC.
        out: The result file; by default docs/results/ with the conditions in its name.
    """
    began = time.monotonic()
    _check_positive(concurrency=concurrency, seconds=(seconds,), rounds=(rounds,), rates=rates)
    if max_rounds < rounds:
        raise UsageError(f"--max-rounds {max_rounds} is less than --rounds {rounds}")
    if len(set(models)) < len(models):
        raise UsageError("--models: one is there twice")
    sent = pictures.load(images, pictures_sent)
    plan = Plan(
        models=models,
        concurrency=concurrency,
        rates=rates,
        seconds=seconds,
        warm=warm,
        min_rounds=rounds,
        max_rounds=max_rounds,
        until=began + 60 * limit_minutes,
        pictures=tuple(sent),
    )
    settings = {
        "pictures": pictures.describe(sent, images),
        "seconds_per_window": seconds,
        "warm_seconds": warm,
        "rounds": f"{rounds} to {max_rounds}",
        "workers": workers,
        "cores": stack.cores(),
        "started_here": not url,
    }
    path = out or RESULTS / results.file_name("compare", *models)
    with _stack(repository, models, workers, url, triton) as running:
        comparison = comparing.run(plan, running, settings, path)
    return _conclude(comparison, path)


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
    reporting.write(found, markdown, html)
    print(f"{markdown}: {len(found)} results" + (f"; {html}" if html else ""))
    return 0


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
    _check_positive(batch_sizes=batch_sizes, windows=(windows,), seconds=(seconds,))
    path = out or RESULTS / results.file_name("bare", *models, precision)
    bare_models.run(
        models,
        batch_sizes,
        precision=precision,
        compiled=compiled,
        seconds=seconds,
        windows=windows,
        out=path,
    )
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
    _check_positive(seconds=(seconds,), rounds=(rounds,))
    if len(set(sizes)) < 4 or any(size % growth.PATCH or size <= 0 for size in sizes):
        raise UsageError(f"--sizes: expected at least four multiples of {growth.PATCH}")
    path = out or RESULTS / results.file_name("sweep", *models)
    found = growth.run(
        models,
        sizes,
        repository=repository,
        pictures=pictures.load(None, 4),
        seconds=seconds,
        rounds=rounds,
        out=path,
    )
    for model, fit in found["fits"].items():
        print(f"{model}: time grows as patches^{fit['exponent']:.2f}")
    for failure in found["failures"]:
        note(f"FAILED: {failure}")
    print(path)
    return 0 if found["ok"] else 1


def evaluate(
    data: Path,
    *,
    model: str,
    url: str = "http://127.0.0.1:8000",
    imagenet_labels: Path | None = None,
    real: Path | None = None,
    batch: int = 32,
    parallel: int = 4,
    out: Path | None = None,
) -> int:
    """Measure the accuracy of a served model, over HTTP.

    Args:
        data: A folder with <class>/*.jpg inside; with one of the next two, ImageNet's validation
            pictures by their own names.
        model: Which one of the gateway's.
        url: Address of the gateway.
        imagenet_labels: File with a line NAME.JPEG CLASS for each picture, classes from 0 in the
            order of the WordNet ids.
        real: ReaL's real.json; a picture counts as right when any of its labels is hit.
        batch: Pictures per request.
        parallel: Requests under way at once.
        out: The result file; by default docs/results/ with the conditions in its name.
    """
    _check_positive(batch=(batch,), parallel=(parallel,))
    if imagenet_labels is not None and real is not None:
        raise UsageError("--imagenet-labels or --real, not both")
    labels = "ReaL" if real else "ImageNet" if imagenet_labels else "folders"
    path = out or RESULTS / results.file_name("evaluate", model, data.name, labels)
    settings = {"data": data.name, "labels": labels, "pictures per request": batch}

    async def ask() -> results.Result:
        evaluation = accuracy.Evaluation(url, model, path, settings)
        about = await evaluation.about()
        if imagenet_labels is None and real is None:
            found = truth.from_folders(data, about["labels"])
        else:
            found = truth.imagenet(data, imagenet_labels, real)
        await evaluation.run(found, batch, parallel)
        return evaluation.result

    result = asyncio.run(ask())
    for failure in result["failures"][:20]:
        note(f"FAILED: {failure}")
    for each in result["confused"][:10]:
        print(f"{each['count']:>6} × {each['true']} called {each['said']}")
    print(
        f"top-1 accuracy {result['top1']:.2%}, top-5 {result['top5']:.2%}, on {result['pictures']} "
        f"pictures, {result['pictures_per_second']:.0f} per second; {path}"
    )
    return 0 if result["ok"] else 1


def tune(
    *,
    model: str,
    slo_p99: float,
    repository: Path = Path("model_repository"),
    concurrency: tuple[int, ...] = (1, 4, 16),
    knobs: tuple[Knob, ...] = get_args(Knob),
    seconds: float = 4.0,
    images: Path | None = None,
    out: Path | None = None,
) -> int:
    """Search the settings of a model that give the most images per second in time.

    The winner is written into the model's config.pbtxt.

    Args:
        model: Its name in the model repository.
        slo_p99: Milliseconds within which 99 % of the answers must come.
        repository: Triton's model repository.
        concurrency: Requests at once that are tried, while the answers come in time.
        knobs: What is tried, one after the other.
        seconds: How long a window is.
        images: A folder of pictures to send; without, photo-like ones are made.
        out: The result file; by default docs/results/ with the conditions in its name.
    """
    _check_positive(slo_p99=(slo_p99,), seconds=(seconds,), concurrency=concurrency)
    sent = pictures.load(images, 8)
    path = out or RESULTS / results.file_name("tune", model, f"p99-{slo_p99:g}-ms")
    settings = {"pictures": pictures.describe(sent, images), "seconds_per_window": seconds}
    tuning = tuner.Tuning(
        repository,
        model,
        slo_p99,
        sent,
        seconds=seconds,
        concurrency=concurrency,
        knobs=knobs,
        out=path,
        settings=settings,
    )
    best = tuning.run()
    if best is None:
        note(f"no setting answers within {slo_p99:g} ms; config.pbtxt is as it was")
        return 1
    print(f"{repository / model / 'config.pbtxt'}: {best}; {path}")
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
    if made := stack.export_missing(repository, models):
        note(f"made with random weights: {', '.join(made)}")
    with stack.running(repository, models, workers) as running:
        yield running


def _conclude(comparison: Comparison, path: Path) -> int:
    result = comparison.result
    for failure in result["failures"]:
        where = f"{failure['model']}, {failure['load']}"
        note(f"FAILED {failure['count']}×: {where}: {failure['error']}")
    print(f"{path}: {'complete' if result['complete'] else 'broken off'}")
    return 0 if result["ok"] and result["complete"] else 1


def _check_positive(**flags: tuple[float, ...]) -> None:
    for name, values in flags.items():
        for value in values:
            if value <= 0:
                raise UsageError(f"--{name} {value:g}: expected more than 0")


COMMANDS: dict[str, Callable[..., int]] = {
    "compare": compare,
    "report": report,
    "bare": bare,
    "sweep": sweep,
    "evaluate": evaluate,
    "tune": tune,
}
