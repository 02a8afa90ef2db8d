"""The command that compares independent programs with our engine."""

import contextlib
from pathlib import Path
from typing import Annotated

import tyro

from loadtest import results
from loadtest.load import sample_images
from loadtest.machine import conditions
from loadtest.machine.disturbance import FOREIGN_LIMIT
from loadtest.progress import note, show, step
from loadtest.report import rulers as rulers_report
from loadtest.rulers.rulers import Rulers
from loadtest.servers import stack
from loadtest.usage import DISTURBED, check_positive, models_folder, results_folder


def rulers(
    *,
    model: str = "mixer_cifar10",
    rounds: int = 5,
    seconds: float = 4.0,
    queries: int = 700,
    images: Path | None = None,
    images_sent: Annotated[int, tyro.conf.arg(name="pictures-sent")] = 16,
    foreign_limit: float = FOREIGN_LIMIT,
    repository: Path = Path("model_repository"),
    out: Path | None = None,
) -> int:
    """Let MLPerf LoadGen, wrk and perf_analyzer measure the server that this engine measures.

    What is not installed is left out. Exit status: 0 they agree, 1 they do not, 3 disturbed.

    Args:
        model: Its name in the model repository.
        rounds: How often each program runs.
        seconds: How long a closed loop is.
        queries: Of each scenario of MLPerf, and requests at random times; 662 tell a p99.
        images: A folder of images to send; without, photo-like ones are made.
        images_sent: How many different ones.
        foreign_limit: Share of all cores that other programs may take during a run; beyond it the
            run does not count.
        repository: Triton's model repository.
        out: The result file; by default one in ~/.local/share/mixer-serving/results with the
            conditions in its name.
    """
    check_positive(
        rounds=(rounds,), seconds=(seconds,), queries=(queries,), images_sent=(images_sent,)
    )
    sent = sample_images.load(images, images_sent)
    path = out or results_folder() / results.file_name("rulers", model)
    folder, _ = stack.find_or_export(repository, models_folder(), model)
    settings = {
        "images": sample_images.describe(sent, images),
        "images_sha256": sample_images.digest(sent),
        "rounds": rounds,
        "seconds_per_closed_loop": seconds,
        "queries": queries,
        "foreign_limit": foreign_limit,
        "cores": conditions.cores(),
    }
    with contextlib.ExitStack() as entered:
        with step("starting Triton and the gateway"):
            running = entered.enter_context(stack.running([folder]))
        run = Rulers(
            running,
            model,
            sent,
            seconds=seconds,
            queries=queries,
            foreign_limit=foreign_limit,
            out=path,
        )
        run.run(rounds, settings)
    show(rulers_report.table(run.result))
    if run.result["accuracy"]:
        print(run.result["accuracy"])
    print(path)
    if run.result["disturbed"]:
        note(f"DISTURBED: {run.result['disturbed']}")
        return DISTURBED
    return 0 if run.result["ok"] else 1
