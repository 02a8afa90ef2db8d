"""Images per second and device, the measure of the Mixer paper's tables, for this machine.

In: variants and batch sizes. Out, as a table and as JSON: for each the rate over several windows
(compilation and the first run are not counted; the clock is read when the devices are done), the
share of the device's peak, and the paper's figure.
"""

import dataclasses
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from reference import checkpoint, models, paper, peaks
from reference.forward import Forward
from reference.parallel import Layout

UNSTABLE = 0.1  # share of the median: allowed difference of the fastest and the slowest window


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One network at one batch size."""

    model: str
    image_size: int
    batch_size: int  # per device
    images_per_second: float | None  # per device, median window; None: does not fit in memory
    windows: tuple[float, ...] = ()  # images per second and device, each

    @property
    def unstable(self) -> bool:
        """Whether the windows differ too much for the figure to mean anything."""
        spread = max(self.windows, default=0) - min(self.windows, default=0)
        return spread > UNSTABLE * (self.images_per_second or 1)


@dataclasses.dataclass(frozen=True)
class Result:
    """All batch sizes of one network."""

    model: str
    image_size: int
    parameters: int
    flops_per_image: float
    share_of_peak: float | None
    paper_tpu_v3: float | None
    best: Measurement
    sweep: tuple[Measurement, ...]


def measure(
    names: Sequence[str],
    batch_sizes: Sequence[int],
    *,
    image_size: int = 0,
    precision: str = "auto",
    windows: int = 5,
    seconds: float = 2.0,
) -> dict[str, Any]:
    """Time these networks on all devices; raises UnknownVariantError. The result is JSON."""
    for name in names:
        models.variant(name)
    devices = jax.devices()
    if precision == "auto":
        precision = "float32" if devices[0].platform == "cpu" else "bfloat16"
    limit, source = peaks.peak(devices[0], precision)
    results = []
    for name in names:
        network = Forward(name, image_size or models.native_image_size(name), precision)
        sweep = _sweep(network, Layout.over(devices), batch_sizes, windows, seconds)
        best = max(sweep, key=lambda each: each.images_per_second or 0)
        flops, rate = network.flops(), best.images_per_second
        results.append(
            Result(
                name,
                network.image_size,
                network.parameters(),
                flops,
                rate * flops / limit if rate else None,
                paper.measured(name, network.image_size),
                best,
                tuple(sweep),
            )
        )
    return {
        "device": devices[0].device_kind,
        "devices": len(devices),
        "jax": jax.__version__,
        "precision": precision,
        "peak_flops": limit,
        "peak_source": source,
        "windows": windows,
        "seconds_per_window": seconds,
        "results": [dataclasses.asdict(result) for result in results],
    }


def _sweep(
    network: Forward, layout: Layout, batch_sizes: Sequence[int], windows: int, seconds: float
) -> list[Measurement]:
    random = np.random.default_rng(0)
    # Random values as large as trained weights, so that no layer gets zeros or infinities.
    params = jax.tree.map(
        lambda leaf: (0.02 * random.standard_normal(leaf.shape)).astype(leaf.dtype),
        network.shapes(),
    )
    params, found = layout.copy(params), []
    for batch_size in sorted(batch_sizes):
        shape = network.images(batch_size * layout.mesh.size)
        images = layout.divide(random.integers(0, 256, shape.shape, np.uint8))
        try:
            run = network.jit(layout).lower(params, images).compile()
            rates = time_windows(partial(run, params, images), batch_size, windows, seconds)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            found.append(Measurement(network.variant, network.image_size, batch_size, None))
            break  # larger ones do not fit either
        rate = statistics.median(rates)
        found.append(
            Measurement(network.variant, network.image_size, batch_size, rate, tuple(rates))
        )
    return found


def time_windows(
    run: Callable[[], jax.Array], images: int, windows: int, seconds: float
) -> list[float]:
    """Images per second in each window of about `seconds`, after one run that is not counted."""
    run().block_until_ready()
    begin = time.perf_counter()
    run().block_until_ready()
    count = max(1, math.ceil(seconds / (time.perf_counter() - begin)))
    rates = []
    for _ in range(windows):
        begin = time.perf_counter()
        jax.block_until_ready([run() for _ in range(count)])
        rates.append(count * images / (time.perf_counter() - begin))
    return rates


def show(report: dict[str, Any], console: Console) -> None:
    """The report as a table."""
    peak = f"{report['peak_flops'] / 1e12:.2f} TFLOP/s ({report['peak_source']})"
    conditions = f"{report['devices']} × {report['device']}, {report['precision']}, peak {peak}"
    table = Table(title=f"Images per second and device: {conditions}", title_justify="left")
    for column in (
        "model",
        "pixels",
        "M parameters",
        "GFLOP/image",
        "batch",
        "images/s",
        "windows",
    ):
        table.add_column(column, justify="left" if column == "model" else "right")
    table.add_column("of peak", justify="right")
    table.add_column("paper, TPUv3 core", justify="right")
    for result in report["results"]:
        best = result["best"]
        rate, paper_rate = best["images_per_second"], result["paper_tpu_v3"]
        low, high = min(best["windows"], default=0), max(best["windows"], default=0)
        unstable = Measurement(**best).unstable
        table.add_row(
            result["model"],
            str(result["image_size"]),
            f"{result['parameters'] / 1e6:.1f}",
            f"{result['flops_per_image'] / 1e9:.2f}",
            str(best["batch_size"]),
            f"{rate:.1f}" if rate else "does not fit",
            f"{low:.1f} to {high:.1f}{' unstable' if unstable else ''}",
            f"{result['share_of_peak']:.0%}" if rate else "",
            f"{paper_rate:.0f}" if paper_rate else "",
        )
    console.print(table)


def write(report: dict[str, Any], out: Path) -> None:
    """The report as JSON, atomically."""
    checkpoint.write_text(out, json.dumps(report, indent=2) + "\n")
