"""The commands that compare and report: what each flag means, and what is printed."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import tyro

from contracts.counting import counted
from loadtest import results
from loadtest.compare import comparison as comparing
from loadtest.compare.comparison import Comparison, Plan
from loadtest.load import sample_images
from loadtest.machine import conditions
from loadtest.machine.disturbance import FOREIGN_LIMIT
from loadtest.progress import note, show, step
from loadtest.report import pages, studies, tables, verdict
from loadtest.servers import stack
from loadtest.usage import DISTURBED, UsageError, check_positive, check_some, models_folder

COMMITTED = Path("docs/results")
STUDY = Path("reference/trained/study")


def compare(
    models: tuple[str, ...],
    *,
    concurrency: tuple[int, ...] = (1, 8),
    rates: tuple[float, ...] = (),
    shares: tuple[float, ...] = (0.2, 0.4, 0.6, 0.75, 0.9),
    arrivals: Literal["poisson", "even"] = "poisson",
    slo_p99: float | None = None,
    seconds: float = 3.0,
    open_seconds: float = 8.0,
    warm: float = 0.8,
    rounds: int = 4,
    max_rounds: int = 40,
    limit_minutes: float = 15.0,
    foreign_limit: float = FOREIGN_LIMIT,
    images: Path | None = None,
    images_sent: Annotated[int, tyro.conf.arg(name="pictures-sent")] = 16,
    repository: Path = Path("model_repository"),
    workers: int = 1,
    url: str = "",
    triton: str = "",
    out: Path | None = None,
) -> int:
    """Measure models against each other, each alone, under the same loads.

    Models that the repository lacks are made with random weights, which is as good for speed, and
    kept in ~/.cache/mixer-serving/models. Exit status: 0 measured and every answer right, 1 a
    request failed or an answer was wrong, 3 other programs used this machine too much.

    Args:
        models: Their names in the model repository, or variants of `python -m export --list`. The
            first is what the others are compared with.
        concurrency: Requests under way at once, in the closed loop, one load for each number.
        rates: Requests per second in the open loop, the same for every model; by --shares if none
            is given.
        shares: Of what each model can do, as rates of the open loop.
        arrivals: When requests are due in the open loop: at random times, as independent people
            send them, or evenly spaced.
        slo_p99: Search the greatest rate at which 99 % of the answers come within so many
            milliseconds. A trial of that takes 700 requests.
        seconds: How long a window of the closed loop is.
        open_seconds: How long a window of the open loop is.
        warm: Seconds before each window that do not count.
        rounds: The fewest windows of each point in the closed loop.
        max_rounds: The most, for the loads under which the ratios are not known within 5 % before.
        limit_minutes: No round begins that would end later; --slo-p99 takes its time beyond it.
        foreign_limit: Share of all cores that other programs may take during a window; beyond it
            the window is repeated.
        images: A folder of images to send; without, photo-like ones are made.
        images_sent: How many different ones.
        repository: Triton's model repository.
        workers: Processes of the gateway.
        url: Address of a gateway that runs already, which must serve these models.
        triton: With --url: HOST:PORT of its Triton's gRPC.
        out: The result file; by default one in ~/.local/share/mixer-serving/results with the
            conditions in its name.
    """
    check_some(models=models, concurrency=concurrency)
    check_positive(concurrency=concurrency, seconds=(seconds, open_seconds), rounds=(rounds,))
    check_positive(rates=rates, shares=shares, limit_minutes=(limit_minutes,))
    check_positive(images_sent=(images_sent,), workers=(workers,), slo_p99=(slo_p99 or 1.0,))
    if max_rounds < rounds:
        raise UsageError(f"--max-rounds {max_rounds} is less than --rounds {rounds}")
    if len(set(models)) < len(models):
        raise UsageError("--models: one is there twice")
    if not rates and not shares:
        raise UsageError("--rates or --shares: expected at least one")
    sent = sample_images.load(images, images_sent)
    plan = Plan(
        models=models,
        concurrency=concurrency,
        rates=rates,
        shares=shares,
        arrivals=arrivals,
        seconds=seconds,
        open_seconds=open_seconds,
        warm=warm,
        min_rounds=rounds,
        max_rounds=max_rounds,
        slo_p99=slo_p99,
        minutes=limit_minutes,
        foreign_limit=foreign_limit,
        sample_images=tuple(sent),
    )
    settings = {
        "images": sample_images.describe(sent, images),
        "images_sha256": sample_images.digest(sent),
        "arrivals": arrivals,
        "seconds_per_window": f"{seconds:g} closed loop, {open_seconds:g} open loop",
        "warm_seconds": warm,
        "rounds": f"{rounds} to {max_rounds}",
        "workers": workers,
        "foreign_limit": foreign_limit,
        "cores": conditions.cores(),
        "started_here": not url,
    }
    with _stack(repository, models, workers, url, triton) as running:
        comparison = comparing.run(plan, running, settings, out)
    return _conclude(comparison)


def report(
    results_in: tyro.conf.Positional[tuple[Path, ...]] = (COMMITTED,),
    *,
    study: Path = STUDY,
    markdown: Path = Path("docs/results.md"),
    html: Path | None = None,
) -> int:
    """Make a page of Markdown, and with --html one HTML file, from results.

    Args:
        results_in: Result files, or folders of them.
        study: A folder of `python -m reference study`: accuracy of the families by their data.
        markdown: The page; its plots go into a folder beside it.
        html: One file with everything in it.
    """
    found = results.read_all(results_in)
    pages.write(found, markdown, html, studies.read(study))
    print(f"{markdown}: {counted(len(found), 'result')}" + (f"; {html}" if html else ""))
    return 0


@contextlib.contextmanager
def _stack(
    repository: Path, models: tuple[str, ...], workers: int, url: str, triton: str
) -> Iterator[stack.Stack]:
    if bool(url) != bool(triton):
        given, missing = ("--url", "--triton") if url else ("--triton", "--url")
        raise UsageError(
            f"{given} needs {missing}, as they belong together: --url is the gateway's address, "
            "--triton HOST:PORT of the gRPC of its Triton, which `make serve` prints when it starts"
        )
    if url:
        yield stack.Stack(url, triton, stack.servers_of(url, triton))
        return
    for model in models:
        if not re.fullmatch(r"[\w.-]+", model):
            raise UsageError(f"--models {model!r}: expected letters, digits, dots, - and _")
    folders = []
    for model in models:
        with step(f"exporting {model}"):
            folder, made = stack.find_or_export(repository, models_folder(), model)
        if made:
            note(f"{folder}: made with random weights")
        folders.append(folder)
    with contextlib.ExitStack() as entered:
        with step("starting Triton and the gateway"):
            running = entered.enter_context(stack.running(folders, workers))
        yield running


def _conclude(comparison: Comparison) -> int:
    result = comparison.result
    for failure in result["failures"]:
        where = f"{failure['model']}, {failure['load']}"
        note(f"FAILED {failure['count']}×: {where}: {failure['error']}")
    if result["disturbed"]:
        note(f"DISTURBED: {result['disturbed']}. These numbers compare nothing.")
    if comparison.out is not None and result["points"]:
        html = comparison.out.with_suffix(".html")
        pages.write([results.read(comparison.out)], None, html)
        if not result["disturbed"]:
            for sentence in verdict.sentences(result):
                print(sentence)
            show(verdict.table(result))
            show(tables.limits_reached(result))
        print(f"{html}: the whole of it, with plots")
    print(f"{comparison.out}: {'complete' if result['complete'] else 'broken off'}")
    if not result["ok"]:
        return 1
    if result["disturbed"]:
        return DISTURBED
    return 0 if result["complete"] else 1
