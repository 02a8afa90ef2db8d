"""The commands about one served model: its accuracy, and its best settings."""

from pathlib import Path
from typing import Literal, get_args

from contracts.counting import counted
from loadtest import evaluate as accuracy
from loadtest import results, truth
from loadtest import tune as tuner
from loadtest.engine_gate import IMAGES
from loadtest.load import loop, sample_images
from loadtest.progress import note
from loadtest.stats.shares import wilson
from loadtest.usage import UsageError, check_positive, check_some, results_folder

Knob = Literal["engine", "instances", "threads", "max_batch_size", "max_queue_delay_microseconds"]


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
            images by their own names.
        model: Which one of the gateway's.
        url: Address of the gateway.
        imagenet_labels: File with a line NAME.JPEG CLASS for each image, classes from 0 in the
            order of the WordNet ids.
        real: ReaL's real.json; an image counts as right when any of its labels is hit.
        batch: Images per request.
        parallel: Requests under way at once.
        out: The result file; by default one in
            ~/.local/share/mixer-serving/results with the conditions in its name.
    """
    check_positive(batch=(batch,), parallel=(parallel,))
    if imagenet_labels is not None and real is not None:
        raise UsageError("--imagenet-labels or --real, not both")
    labels = "ReaL" if real else "ImageNet" if imagenet_labels else "folders"
    path = out or results_folder() / results.file_name("evaluate", model, data.name, labels)
    settings = {"data": data.name, "labels": labels, "images per request": batch}

    async def ask() -> results.Result:
        evaluation = accuracy.Evaluation(url, model, path, settings)
        about = await evaluation.about()
        if imagenet_labels is None and real is None:
            found = truth.from_folders(data, about["labels"])
        else:
            found = truth.imagenet(data, imagenet_labels, real)
        await evaluation.run(found, batch, parallel)
        return evaluation.result

    result = loop.run(ask())
    for failure in result["failures"][:20]:
        note(f"FAILED: {failure}")
    for each in result["confused"][:10]:
        print(f"{each['count']:>6} × {each['true']} called {each['said']}")
    count = result["pictures"]
    first, five = (wilson(round(result[key] * count), count) for key in ("top1", "top5"))
    print(
        f"top-1 accuracy {first.text()}, top-5 {five.text()}, on {counted(count, 'image')}, "
        f"{result['pictures_per_second']:.0f} per second; {path}"
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
    dry_run: bool = False,
) -> int:
    """Search the settings of a model that give the most images per second in time.

    The winner is written into the model's config.pbtxt if it gains beyond noise. An engine must
    give the answers that the model gives now, by the gate of the precision in which it computes.

    Args:
        model: Its name in the model repository.
        slo_p99: Milliseconds within which 99 % of the answers must come.
        repository: Triton's model repository.
        concurrency: Requests at once that are tried, while the answers come in time.
        knobs: What is tried, one after the other.
        seconds: How long a window is.
        images: A folder of images: the first 8 are sent, and up to 64 judge an engine; without,
            photo-like ones are made.
        out: The result file; by default one in
            ~/.local/share/mixer-serving/results with the conditions in its name.
        dry_run: Leave config.pbtxt as it is.
    """
    check_some(concurrency=concurrency)
    check_positive(slo_p99=(slo_p99,), seconds=(seconds,), concurrency=concurrency)
    found = sample_images.load(images, IMAGES)
    path = out or results_folder() / results.file_name("tune", model, f"p99-{slo_p99:g}-ms")
    settings = {
        "pictures": sample_images.describe(found[: tuner.SENT], images),
        "seconds_per_window": seconds,
    }
    tuning = tuner.Tuning(
        repository,
        model,
        slo_p99,
        found,
        seconds=seconds,
        concurrency=concurrency,
        knobs=knobs,
        out=path,
        settings=settings,
        dry_run=dry_run,
    )
    best = tuning.run()
    if best is None:
        note(f"no setting answers within {slo_p99:g} ms; config.pbtxt is as it was")
        return 1
    print(f"{repository / model / 'config.pbtxt'}: {best}; {path}")
    return 0
