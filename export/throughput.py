"""`python -m export throughput`: images per second of the bare PyTorch models, without any server.

In: variants and batch sizes. Out: for each the rate over several windows, as lines and as JSON of
the same shape as that of `python -m reference throughput`. The first runs, in which PyTorch
compiles and allocates, are not counted; on a GPU the clock is read when it is done. Pixels come as
uint8 and probabilities go, as in serving.
"""

import dataclasses
import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from contracts.variants import VARIANTS
from export.progress import console, track
from export.random_weights import random_classifier


@dataclasses.dataclass(frozen=True)
class Throughput:
    """Measure images per second of the bare PyTorch models: the measure of the Mixer paper."""

    models: tuple[str, ...] = ("mixer_s16", "mixer_b16", "vit_b16", "bit_r50x1")
    """Which variants; `python -m export --list` shows them."""
    batch_sizes: tuple[int, ...] = (1, 8, 32)
    """Images at once; the best one counts, as in the paper."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What products are computed in; auto: bfloat16 on a GPU, else float32."""
    compile: bool = False
    """Compile with torch.compile first."""
    windows: int = 5
    """How often each figure is measured; the median counts."""
    seconds: float = 2.0
    """How long a window is."""
    out: Path | None = None
    """Write all of it as JSON."""


class Served(torch.nn.Module):
    """A network as it is served: uint8[N, H, W, 3] to probabilities float32[N, K]."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network((images.float() - 127.5) / 127.5)
        return logits.float().softmax(dim=-1)


def main(arguments: Sequence[str]) -> int:
    """Run the command; the exit status."""
    options = tyro.cli(
        Throughput, prog="python -m export throughput", args=arguments, description=__doc__
    )
    if min((*options.batch_sizes, options.windows)) < 1 or options.seconds <= 0:
        print("error: batch sizes, windows, seconds: must be above zero", file=sys.stderr)
        return 2
    if unknown := [name for name in options.models if name not in VARIANTS]:
        print(f"error: unknown {', '.join(unknown)}; known: {', '.join(VARIANTS)}", file=sys.stderr)
        return 2
    if options.out is not None and not options.out.parent.is_dir():
        print(
            f"error: --out {options.out}: there is no folder {options.out.parent}", file=sys.stderr
        )
        return 2
    device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = options.precision
    if precision == "auto":
        precision = "bfloat16" if device == "cuda" else "float32"
    results = [measure(name, options, device, precision) for name in options.models]
    report = {
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "precision": precision + (", compiled" if options.compile else ""),
        "windows": options.windows,
        "seconds_per_window": options.seconds,
        "results": results,
    }
    if options.out is not None:
        temporary = options.out.with_name(f".{options.out.name}.new")
        temporary.write_text(json.dumps(report, indent=2) + "\n")
        temporary.replace(options.out)
    for result in results:
        best = result["best"]
        rate = best["images_per_second"]
        shown = f"{rate:.1f} images/s" if rate else "does not fit"
        print(f"{result['model']}: {shown}, batch {best['batch_size']}")
    return 0


def measure(name: str, options: Throughput, device: str, precision: str) -> dict[str, Any]:
    """All batch sizes of one variant."""
    classifier = random_classifier(name)
    size = classifier.image_size
    network = Served(classifier.module).to(device).eval()
    if options.compile:
        network.compile()
    sweep: list[dict[str, Any]] = []
    for batch_size in track(sorted(options.batch_sizes), name):
        images = torch.randint(0, 256, (batch_size, size, size, 3), dtype=torch.uint8)
        try:
            windows = time_windows(network, images.to(device), options, precision)
        except torch.OutOfMemoryError:
            sweep.append({"batch_size": batch_size, "images_per_second": None, "windows": []})
            break  # larger ones do not fit either
        rate = statistics.median(windows)
        sweep.append({"batch_size": batch_size, "images_per_second": rate, "windows": windows})
        console.print(f"{name}, batch {batch_size}: {rate:.1f} images/s", markup=False)
    best = max(sweep, key=lambda each: each["images_per_second"] or 0)
    return {"model": name, "image_size": size, "best": best, "sweep": sweep}


@torch.inference_mode()
def time_windows(
    network: torch.nn.Module, images: torch.Tensor, options: Throughput, precision: str
) -> list[float]:
    """Images per second in each window, after runs that are not counted."""

    def run(times: int) -> float:
        began = time.perf_counter()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            for _ in range(times):
                network(images)
        if images.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - began

    run(2)
    times = max(1, math.ceil(options.seconds / run(1)))
    return [times * len(images) / run(times) for _ in range(options.windows)]
