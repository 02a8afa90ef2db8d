"""Throughput at growing resolution: how the time of a model grows with the number of patches.

In: image sizes. Out: a result with the time per image at each size and fitted exponents. Mixers are
written as checkpoints in the published format, with random numbers: their token-mixing MLP has the
hidden width of the table whatever the number of patches, as the paper has it where it calls their
cost linear. Everything is served: export, Triton, one image per request.
"""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from loadtest import results
from loadtest.compare.measure import Load, visit
from loadtest.load import loop
from loadtest.load.engine import MOST_FAILURES
from loadtest.load.sample_images import SampleImage
from loadtest.load.triton_target import Triton, TritonTarget
from loadtest.machine import conditions
from loadtest.progress import bar
from loadtest.servers import stack

PATCH = 16
CLASSES = 1000


@dataclasses.dataclass(frozen=True)
class Mixer:
    """Sizes of a Mixer, as in table 1 of the paper."""

    hidden_dim: int
    num_blocks: int
    tokens_mlp_dim: int
    channels_mlp_dim: int


MIXERS = {"mixer_s16": Mixer(512, 8, 256, 2048), "mixer_b16": Mixer(768, 12, 384, 3072)}


def write_mixer(path: Path, sizes: Mixer, image_size: int) -> None:
    """A checkpoint with random numbers for images of that size."""
    random = np.random.default_rng(0)
    tokens, width = (image_size // PATCH) ** 2, sizes.hidden_dim
    arrays: dict[str, npt.NDArray[np.float32]] = {}

    def dense(name: str, *shape: int) -> None:
        scale = math.prod(shape[:-1]) ** -0.5
        arrays[f"{name}/kernel"] = random.normal(0, scale, shape).astype(np.float32)
        arrays[f"{name}/bias"] = np.zeros(shape[-1], np.float32)

    def norm(name: str) -> None:
        arrays[f"{name}/scale"] = np.ones(width, np.float32)
        arrays[f"{name}/bias"] = np.zeros(width, np.float32)

    dense("stem", PATCH, PATCH, 3, width)
    for number in range(sizes.num_blocks):
        block = f"MixerBlock_{number}"
        norm(f"{block}/LayerNorm_0")
        norm(f"{block}/LayerNorm_1")
        dense(f"{block}/token_mixing/Dense_0", tokens, sizes.tokens_mlp_dim)
        dense(f"{block}/token_mixing/Dense_1", sizes.tokens_mlp_dim, tokens)
        dense(f"{block}/channel_mixing/Dense_0", width, sizes.channels_mlp_dim)
        dense(f"{block}/channel_mixing/Dense_1", sizes.channels_mlp_dim, width)
    norm("pre_head_layer_norm")
    dense("head", width, CLASSES)
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # its stub thinks of allow_pickle


def publish(repository: Path, model: str, image_size: int) -> str:
    """Publish the model at that image size, if it is not there; its name."""
    name = f"{model}_at_{image_size}"
    if (repository / name / "config.pbtxt").is_file():
        return name
    flags = ("--name", name, "--max-batch-size", "1", "--repository", str(repository))
    if model not in MIXERS:
        stack.export("--model", model, "--image-size", str(image_size), *flags)
        return name
    checkpoint = repository / f".{name}.npz"
    try:
        write_mixer(checkpoint, MIXERS[model], image_size)
        stack.export("--checkpoint", str(checkpoint), *flags)
    finally:
        checkpoint.unlink(missing_ok=True)
    return name


def run(
    models: Sequence[str],
    sizes: Sequence[int],
    *,
    repository: Path,
    sample_images: Sequence[SampleImage],
    seconds: float,
    rounds: int,
    out: Path,
) -> results.Result:
    """Measure all of it; raises StackError, TargetError."""
    result: results.Result = {
        "kind": "sweep",
        "complete": False,
        "ok": True,
        "conditions": conditions.conditions(),
        "settings": {
            "images per request": 1,
            "seconds_per_window": seconds,
            "rounds": rounds,
            "weights": "random",
        },
        "rows": [],
        "fits": {},
        "failures": [],
    }
    names = {}
    repository.mkdir(parents=True, exist_ok=True)
    with bar() as progress:
        task = progress.add_task("exporting", total=len(models) * len(sizes))
        for model in models:
            for size in sizes:
                names[model, size] = publish(repository, model, size)
                progress.advance(task)
    with stack.running(repository, list(names.values())) as running:
        loop.run(
            _measure(
                result,
                names,
                running,
                sample_images=sample_images,
                seconds=seconds,
                rounds=rounds,
                out=out,
            )
        )
    return result


async def _measure(
    result: results.Result,
    names: dict[tuple[str, int], str],
    running: stack.Stack,
    *,
    sample_images: Sequence[SampleImage],
    seconds: float,
    rounds: int,
    out: Path,
) -> None:
    triton = Triton(running.triton)
    times: dict[tuple[str, int], list[float]] = {key: [] for key in names}
    rates: dict[tuple[str, int], list[float]] = {key: [] for key in names}
    cpu: dict[tuple[str, int], list[float]] = {key: [] for key in names}
    try:
        targets = {
            key: await TritonTarget.prepare(triton, name, sample_images, "fp32")
            for key, name in names.items()
        }
        with bar() as progress:
            task = progress.add_task("", total=rounds * len(names))
            for number in range(rounds):
                # There and back, so that a machine that grows slower favours no size.
                for key in list(names)[:: 1 if number % 2 == 0 else -1]:
                    progress.update(task, description=f"{key[0]}, {key[1]} pixels")
                    found, window = await visit(
                        targets[key],
                        Load("triton", 1),
                        model=names[key],
                        number=number,
                        warm=seconds / 4,
                        seconds=seconds,
                        triton=triton,
                        instances=1,
                        servers=running.servers,
                    )
                    result["failures"] += window.errors[: MOST_FAILURES - len(result["failures"])]
                    if found.compute_ms is not None:
                        times[key].append(found.compute_ms)
                        rates[key].append(found.rate)
                        seconds_used = found.cpu_seconds.get("model", 0.0)
                        cpu[key].append(1e3 * seconds_used / max(1, found.images))
                    _conclude(result, times, rates, cpu)
                    results.write(out, result)
                    progress.advance(task)
        result["complete"] = True
        results.write(out, result)
    finally:
        await triton.close()


def _conclude(
    result: results.Result,
    times: dict[tuple[str, int], list[float]],
    rates: dict[tuple[str, int], list[float]],
    cpu: dict[tuple[str, int], list[float]],
) -> None:
    result["ok"] = not result["failures"]
    result["rows"] = [
        {
            "model": model,
            "image_size": size,
            "tokens": (size // PATCH) ** 2,
            "compute_ms": round(statistics.median(found), 4),
            "cpu_ms": round(statistics.median(cpu[model, size]), 4),
            "images_per_second": round(statistics.median(rates[model, size]), 4),
            "windows_ms": found,
        }
        for (model, size), found in times.items()
        if found
    ]
    for model in {row["model"] for row in result["rows"]}:
        for kind in ("compute_ms", "cpu_ms"):
            points = [(r["tokens"], r[kind]) for r in result["rows"] if r["model"] == model]
            if len(points) >= 4 and min(points)[1] > 0:
                result["fits"].setdefault(model, {})[kind] = fit(points)


def fit(points: Sequence[tuple[float, float]]) -> dict[str, float]:
    """How a time grows with S: t = scale · S^exponent, by least squares of the logarithms.

    `upper_exponent` is that of the upper half of the sizes. `quadratic_share` is c·S² ÷ t at the
    largest S in t = a + b·S + c·S² with no term below zero, by least squares relative to t.
    """
    tokens, times = np.array(sorted(points), np.float64).T
    exponent, scale = np.polyfit(np.log(tokens), np.log(times), 1)
    half = len(tokens) // 2
    upper, _ = np.polyfit(np.log(tokens[half:]), np.log(times[half:]), 1)
    best = np.zeros(3)
    least = math.inf
    # Every choice of terms; the best of those without a negative one is the constrained optimum.
    for mask in range(1, 8):
        chosen = [power for power in range(3) if mask >> power & 1]
        terms = np.stack([tokens**power / times for power in chosen], axis=1)
        found, *_ = np.linalg.lstsq(terms, np.ones_like(times), rcond=None)
        miss = float(((terms @ found - 1) ** 2).sum())
        if (found >= 0).all() and miss < least:
            least, best = miss, np.zeros(3)
            best[chosen] = found
    largest = tokens[-1] ** np.arange(3)
    return {
        "exponent": round(float(exponent), 4),
        "scale": float(np.exp(scale)),
        "upper_exponent": round(float(upper), 4),
        "quadratic_share": round(float(best[2] * largest[2] / (best @ largest)), 4),
    }
