"""Throughput at growing resolution: how the time of a model grows with the number of patches.

In: image sizes. Out: a result with the time per image at each size, fitted exponents with
intervals, and beside them the exponents of the arithmetic. Mixers are written as checkpoints in the
published format, with random numbers, in two kinds. In `mixer_s16` the hidden width of the
token-mixing MLP is the same for every number of patches; the paper calls this case linear.
`mixer_s16_enlarged` is the network that fine-tuning at a higher resolution makes (appendix C of the
paper: the MLP becomes block-diagonal, so its hidden width grows with the number of patches).
Every model takes the whole path: export, Triton, one image per request.

For each window Triton is started with that one model (servers/turns.py says why). A round goes
through all sizes, and at each size through all models, so that models of one size are measured
within a minute, and each round has an exponent of its own, whose spread over the rounds is the
interval. The next round goes in the opposite order. The result is written after every window, so
that a run that is cut off keeps what it has measured.
"""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.model_config import parameters, read_config
from contracts.repository import CONFIG_NAME
from loadtest import results
from loadtest.compare.measure import Load, Visit, visit
from loadtest.load import loop
from loadtest.load.engine import MOST_FAILURES
from loadtest.load.sample_images import SampleImage
from loadtest.load.triton_target import Triton, TritonTarget
from loadtest.machine import conditions
from loadtest.machine.disturbance import FOREIGN_LIMIT
from loadtest.progress import bar
from loadtest.servers import stack
from loadtest.servers.turns import Turns
from loadtest.stats.growth import fits

PATCH = 16
CLASSES = 1000
TRAINED_AT = 224  # pixels per side, for which the table states the hidden widths
ENLARGED = "_enlarged"
REPEATS = 2  # of a window that was disturbed
WARM_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Mixer:
    """Sizes of a Mixer, as in table 1 of the paper."""

    hidden_dim: int
    num_blocks: int
    tokens_mlp_dim: int
    channels_mlp_dim: int


MIXERS = {"mixer_s16": Mixer(512, 8, 256, 2048), "mixer_b16": Mixer(768, 12, 384, 3072)}


def sizes_of(model: str, image_size: int) -> Mixer | None:
    """The sizes of a Mixer for images of that size; None for a model of another family."""
    sizes = MIXERS.get(model.removesuffix(ENLARGED))
    if sizes is None or not model.endswith(ENLARGED):
        return sizes
    grown = (image_size / TRAINED_AT) ** 2
    return dataclasses.replace(sizes, tokens_mlp_dim=max(1, round(grown * sizes.tokens_mlp_dim)))


def write_mixer(path: Path, sizes: Mixer, image_size: int) -> None:
    """Write a checkpoint with random numbers for images of that size."""
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


def publish(repository: Path, model: str, image_size: int) -> Path:
    """Publish the model at that image size, unless it is published already; returns its folder."""
    name = f"{model}_at_{image_size}"
    if (repository / name / CONFIG_NAME).is_file():
        return repository / name
    flags = ("--name", name, "--max-batch-size", "1", "--repository", str(repository))
    sizes = sizes_of(model, image_size)
    if sizes is None:
        stack.export("--model", model, "--image-size", str(image_size), *flags)
        return repository / name
    checkpoint = repository / f".{name}.npz"
    try:
        write_mixer(checkpoint, sizes, image_size)
        stack.export("--checkpoint", str(checkpoint), *flags)
    finally:
        checkpoint.unlink(missing_ok=True)
    return repository / name


Key = tuple[str, int]  # model, pixels per side


class Sweep:
    """One measurement of all models at all sizes."""

    def __init__(
        self, models: Sequence[str], sizes: Sequence[int], repository: Path, out: Path
    ) -> None:
        self._models = list(dict.fromkeys(models))
        self._keys = [(model, size) for size in dict.fromkeys(sizes) for model in self._models]
        self._repository, self._out = repository, out
        self._folders: dict[Key, Path] = {}
        self._foreign_limit = FOREIGN_LIMIT
        self._flops: dict[Key, float | None] = {}
        self._visits: dict[Key, list[Visit]] = {key: [] for key in self._keys}
        self.result: results.Result = {
            "kind": "sweep",
            "complete": False,
            "ok": True,
            "disturbed": "",
            "conditions": conditions.conditions(),
            "settings": {"images per request": 1, "weights": "random"},
            "rows": [],
            "fits": {},
            "failures": [],
        }

    def run(
        self,
        sample_images: Sequence[SampleImage],
        seconds: float,
        rounds: int,
        foreign_limit: float = FOREIGN_LIMIT,
    ) -> None:
        """Measure all models at all sizes; raises StackError, TargetError."""
        self._foreign_limit = foreign_limit
        self.result["settings"] |= {
            "seconds_per_window": seconds, "rounds": rounds, "foreign_limit": foreign_limit,
        }  # fmt: skip
        self._repository.mkdir(parents=True, exist_ok=True)
        with bar() as progress:
            task = progress.add_task("exporting", total=len(self._keys))
            for key in self._keys:
                self._folders[key] = publish(self._repository, *key)
                self._flops[key] = flops_per_image(self._folders[key])
                progress.advance(task)
        with bar() as progress, Turns() as turns:
            task = progress.add_task("", total=rounds * len(self._keys))
            for number in range(rounds):
                # Every second round goes in the opposite order, so that a machine that becomes
                # slower favours no size.
                for key in self._keys[:: 1 if number % 2 == 0 else -1]:
                    progress.update(task, description=f"{key[0]}, {key[1]} pixels")
                    with turns.serving(self._folders[key]) as running:
                        loop.run(self._measure(key, number, running, sample_images, seconds))
                    progress.advance(task)
        self.result["complete"] = True
        self._write()

    async def _measure(
        self,
        key: Key,
        number: int,
        running: stack.Stack,
        sample_images: Sequence[SampleImage],
        seconds: float,
    ) -> None:
        """Measure a window of one model, again if it was disturbed."""
        name = self._folders[key].name
        triton = Triton(running.triton)
        try:
            target = await TritonTarget.prepare(triton, name, sample_images, "fp32")
            for _ in range(1 + REPEATS):
                found, window = await visit(
                    target,
                    Load("triton", 1),
                    model=name,
                    number=number,
                    warm=WARM_SECONDS,
                    seconds=seconds,
                    triton=triton,
                    instances=1,
                    servers=running.servers,
                    foreign_limit=self._foreign_limit,
                )
                self._visits[key].append(found)
                failed = self.result["failures"]
                failed += window.errors[: MOST_FAILURES - len(failed)]
                self._write()
                if not found.disturbed:
                    break
        finally:
            await triton.close()

    def _write(self) -> None:
        keys = sorted(self._keys, key=lambda key: self._models.index(key[0]))
        rows = [row for key in keys if (row := _row(key, self._visits[key], self._flops[key]))]
        lacking = [f"{m} at {s}" for m, s in self._keys if self._visits[m, s] and not any(
            not each.disturbed for each in self._visits[m, s]
        )]  # fmt: skip
        self.result |= {
            "ok": not self.result["failures"],
            "rows": rows,
            "disturbed": f"no window of {', '.join(lacking)} counts" if lacking else "",
            "fits": {
                model: fits(rows_of)
                for model in self._models
                if len(rows_of := [row for row in rows if row["model"] == model]) >= 4
            },
        }
        results.write(self._out, self.result)


def flops_per_image(folder: Path) -> float | None:
    """The FLOPs per image that the export counted; a multiply-add counts as two."""
    stated = parameters(read_config(folder / CONFIG_NAME)).get("flops_per_image")
    return float(stated) if stated else None


def _row(key: Key, visits: Sequence[Visit], flops: float | None) -> dict[str, Any] | None:
    windows: list[dict[str, Any]] = [
        {
            "round": each.round,
            "compute_ms": each.compute_ms,
            "cpu_ms": round(1e3 * each.cpu_seconds.get("model", 0.0) / max(1, each.images), 4),
            "rate": each.rate,
            "disturbed": each.disturbed,
        }
        for each in visits
        if each.compute_ms is not None
    ]
    counted = [each for each in windows if not each["disturbed"]]
    if not counted:
        return None

    def median(name: str) -> float:
        return round(statistics.median([float(each[name]) for each in counted]), 4)

    return {
        "model": key[0],
        "image_size": key[1],
        "tokens": (key[1] // PATCH) ** 2,
        "flops": flops,
        "compute_ms": median("compute_ms"),
        "cpu_ms": median("cpu_ms"),
        "images_per_second": median("rate"),
        "windows": windows,
    }
