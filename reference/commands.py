"""The commands of `python -m reference`: what each flag means, and what is printed."""

import importlib.metadata
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from contracts.counting import counted
from contracts.labels import LabelsError
from contracts.published import CheckpointError
from reference import checkpoint, compile_report, data, fewshot, models, parallel, topology
from reference import evaluate as evaluation
from reference import plot as plotting
from reference import serialize as serialization
from reference import study_report as reporting
from reference import throughput as timing
from reference import train as training
from reference.config import ConfigError, TrainConfig
from reference.forward import Forward
from reference.models import native_image_size
from reference.recipes import RECIPES
from reference.settle import recorded
from reference.study import Plan, Study

UserError = (
    CheckpointError,
    LabelsError,
    data.DataError,
    ConfigError,
    models.UnknownVariantError,
    topology.TopologyError,
    plotting.PlotError,
    reporting.ReportError,
)


def train_by(recipe: str, resumed: Path | None = None) -> Callable[..., None]:
    """The command `train`; its defaults are a recipe's numbers, or else those of a resumed run.

    "" is no recipe, None no run; `resumed` is the --out of the run.
    """
    default = RECIPES[recipe].config if recipe else TrainConfig()
    if resumed is not None and not recipe:
        default = recorded(evaluation.record_beside(checkpoint.npz_name(resumed))) or default

    def command(
        config: Annotated[TrainConfig, tyro.conf.arg(name="")] = default,
        *,
        data: Path,
        out: Path,
        recipe: str = "",
        resume: bool = False,
        refuse_broken: bool = False,
        profile: bool = False,
        distributed: bool = False,
        coordinator: str = "",
        processes: int = 1,
        process: int = 0,
    ) -> None:
        """Train a network on a folder of images, or fine-tune a checkpoint on it.

        Args:
            config: What the run computes.
            data: A folder with train/<class>/*.jpg inside, or with train-*.tar files as WebDataset
                has them, or the file cifar-10-python.tar.gz or cifar-100-python.tar.gz.
            out: The checkpoint to write; its name gets .npz if it lacks that. Its states, log and
                configuration lie beside it.
            recipe: Begin with the numbers of a published recipe (docs/training.md); every other
                flag overrides one of them. With it, --help shows them.
            resume: Go on from the states beside --out. Flags that are left out keep the values with
                which the run began.
            refuse_broken: End at the first file that is no image, instead of skipping it by name.
            profile: Record ten steps for TensorBoard's profiler, in NAME.profile.
            distributed: Train together with other processes: the same command on every host of a
                TPU pod or of a Slurm job, which say the rest themselves.
            coordinator: Elsewhere: HOST:PORT of process 0. --data and --out must be shared folders.
            processes: Elsewhere: how many processes there are.
            process: Elsewhere: which of them this is, from 0.
        """
        if recipe and recipe not in RECIPES:  # a known recipe's numbers are in config already
            raise ConfigError(f"recipe: no {recipe!r}; there are {', '.join(RECIPES)}")
        if distributed or coordinator:
            parallel.join(coordinator, processes, process)
        train(config, data, out, resume=resume, refuse_broken=refuse_broken, profile=profile)

    return command


def train(
    config: TrainConfig,
    data: Path,
    out: Path,
    *,
    resume: bool = False,
    refuse_broken: bool = False,
    profile: bool = False,
) -> None:
    """Run a configuration and print the accuracy."""
    found = training.train(
        config, data, out, resume=resume, refuse_broken=refuse_broken, profile=profile
    )
    written = checkpoint.npz_name(out)
    on = counted(found.images, "held-back training image")
    print(f"{written}: accuracy {found.top1:.2%} on {on}")


def evaluate(
    checkpoint_file: Annotated[Path, tyro.conf.arg(name="checkpoint")],
    data_source: Annotated[Path, tyro.conf.arg(name="data")],
    split: str = "test",
    image_size: int | None = None,
    *,
    resize: Literal["squash", "shortest"] | None = None,
    crop_fraction: float | None = None,
    confusion: Path | None = None,
) -> None:
    """Measure a checkpoint's accuracy and calibration; Mixer, ViT or BiT.

    Args:
        checkpoint_file: An .npz file in the published format.
        data_source: What `train` takes for --data; or a folder with SPLIT.txt, of whose lines each
            has a file and the number of its class, as VTAB's lists have.
        split: Which part: train or test.
        image_size: Pixels per side, for BiT, which takes any; its default is its training run's, or
            224.
        resize: How images are resized: straight to the square, or by the shorter side; the default
            is the training run's, or squash.
        crop_fraction: The share of the resized side that is cut out of the middle; likewise, or 1.
        confusion: Write which classes are taken for which, as CSV.
    """
    if crop_fraction is not None and not 0.1 <= crop_fraction <= 1:
        raise ConfigError(f"crop_fraction: {crop_fraction} is not in [0.1, 1]")
    network = evaluation.open_network(checkpoint_file, image_size, resize, crop_fraction)
    found = evaluation.evaluate_file(network, data_source, split)
    print(
        f"top-1 accuracy {found.top1:.2%}, top-5 {found.top5:.2%}, "
        f"on {counted(found.images, 'image')} of {data_source}, {split}"
    )
    low, high = found.top1_interval
    print(
        f"95 % interval of top-1 {low:.2%} to {high:.2%}; expected calibration error "
        f"{found.calibration_error:.2%}; log loss {found.log_loss:.4f}"
    )
    if confusion is not None:
        rows = "".join(",".join(map(str, row)) + "\n" for row in found.confusion.tolist())
        checkpoint.write_text(confusion, rows)


def few_shot(
    checkpoint_file: Annotated[Path, tyro.conf.arg(name="checkpoint")],
    data_source: Annotated[Path, tyro.conf.arg(name="data")],
    *,
    shots: tuple[int, ...] = fewshot.SHOTS,
    image_size: int | None = None,
    resize: Literal["squash", "shortest"] | None = None,
    crop_fraction: float | None = None,
) -> None:
    """Measure a frozen network's features by a linear probe on a few images of each class.

    As big_vision's `fewshot_lsr` does, whose images are squashed to 256 and cut to 224:
    `--resize squash --crop-fraction 0.875`.

    Args:
        checkpoint_file: An .npz file in the published format; its classes do not matter.
        data_source: What `train` takes for --data, with a test split.
        shots: How many images of each class.
        image_size: As for `evaluate`.
        resize: As for `evaluate`.
        crop_fraction: As for `evaluate`.
    """
    network = evaluation.open_network(checkpoint_file, image_size, resize, crop_fraction)
    training, test = (network.load(data_source, split) for split in ("train", "test"))
    # Only the training images that the probes may draw.
    rows = fewshot.candidates(training.labels, max(shots))
    training = training.take(rows)
    both = [(network.features(part), part.labels) for part in (training, test)]
    for found in fewshot.probe(both[0], both[1], shots):
        each = ", ".join(f"{accuracy:.2%}" for accuracy in found.accuracies)
        on = counted(len(test), "image")
        print(f"{found.shots}-shot accuracy {found.mean:.2%} ({each}) on {on}")


def study(
    plan: Annotated[Plan, tyro.conf.arg(name="")],
    *,
    data: Path,
    out: Path,
) -> None:
    """Train Mixer, ViT and BiT of like cost by one recipe, on more and on less data.

    The same command goes on where it was stopped; more seeds may be asked for later.

    Args:
        plan: What is compared.
        data: CIFAR-10: a folder with train/<class>/*.jpg and test/<class>/*.jpg inside, or the file
            cifar-10-python.tar.gz.
        out: The folder of the runs; study.json in it has what they came to.
    """
    Study(plan, data, out).run()


def serialize(
    checkpoint_file: Annotated[Path, tyro.conf.arg(name="checkpoint")],
    *,
    name: str,
    labels: Path | None = None,
    image_size: int | None = None,
    max_batch_size: int = 32,
    repository: Path = Path("model_repository"),
    onnx: Path | None = None,
) -> None:
    """Write a checkpoint as a program of XLA that a Triton serves with its backend `jax`.

    Args:
        checkpoint_file: An .npz file in the published format.
        name: Of the model in the repository.
        labels: One class a line, in the order of the logits.
        image_size: Pixels per side, for BiT, which takes any; its default is 224.
        max_batch_size: The largest batch.
        repository: Where NAME is written.
        onnx: The same classifier as `python -m export` writes it, in its model folder, whose
            temperature is taken along; nothing is written unless both give the same probabilities.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ConfigError(f"name: {name!r} is not letters, digits, '_', '.' and '-' alone")
    if max_batch_size < 1:
        raise ConfigError(f"max_batch_size: {max_batch_size} is not above zero")
    done = serialization.serialize(
        checkpoint_file,
        name,
        repository,
        labels=labels,
        image_size=image_size,
        max_batch_size=max_batch_size,
        onnx=onnx,
    )
    same = done.largest_difference
    beside = "" if same is None else f", probabilities within {same:.1e} of {onnx}"
    print(f"{done.folder}: {done.bytes / 1e6:.1f} MB{beside}")


def study_report(study_file: Annotated[Path, tyro.conf.arg(name="study")], figure: Path) -> None:
    """Print what a study came to as Markdown, and draw it.

    Args:
        study_file: The study.json of a study, of a whole one or of one that still runs.
        figure: The image to write: .svg or .png.
    """
    study, points = reporting.read(study_file)
    reporting.draw(study, points, figure)
    print(reporting.markdown(study, points), end="")


def plot(log: tuple[Path, ...], out: Path) -> None:
    """Draw the loss and the accuracy of one or more runs as an image.

    Args:
        log: The NAME.log.jsonl of each run.
        out: The image to write: .png, .svg or .pdf.
    """
    plotting.plot(log, out)
    print(f"{out}: {counted(len(log), 'run')}")


def throughput(
    *,
    models: tuple[str, ...] = ("mixer_s16", "mixer_b16", "vit_b16", "bit_r50x1"),
    batch_sizes: tuple[int, ...] = (1, 8, 32, 128),
    image_size: int = 0,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    windows: int = 5,
    seconds: float = 2.0,
    out: Path | None = None,
) -> None:
    """Measure images per second and device of the forward pass, the measure of the paper.

    Args:
        models: Which variants.
        batch_sizes: Images per device; the best one counts, as in the paper.
        image_size: Pixels per side; 0: each variant's own.
        precision: What is computed in; auto: bfloat16 on TPU and GPU.
        windows: How often each figure is measured; the median counts.
        seconds: How long a window is.
        out: Write all of it as JSON.
    """
    if min((*batch_sizes, windows)) < 1 or seconds <= 0:
        raise ConfigError("batch_sizes, windows, seconds: must be above zero")
    report = timing.measure(
        models,
        batch_sizes,
        image_size=image_size,
        precision=precision,
        windows=windows,
        seconds=seconds,
    )
    timing.show(report, _wide())
    if out is not None:
        timing.write(report, out)


def compile_(
    *,
    topologies: Annotated[tuple[str, ...], tyro.conf.arg(name="topology")],
    models: tuple[str, ...] = ("mixer_b16",),
    kind: Literal["forward", "train"] = "forward",
    batch_sizes: tuple[int, ...] = (128,),
    image_size: int = 0,
    precision: Literal["float32", "bfloat16"] = "bfloat16",
    out: Path | None = None,
) -> None:
    """Compile for TPU slices with the TPU's own compiler, on a machine without a TPU.

    Args:
        topologies: Slices: v3:2x2, v4:4x4x4, v5e:16x16, v5p:2x2x1, v6e:4x4 and so on.
        models: Which variants.
        kind: The forward pass, or the data-parallel training step.
        batch_sizes: Images per device.
        image_size: Pixels per side; 0: each variant's own.
        precision: What is computed in.
        out: Write what the compiler says as JSON; rows of other programs in it are kept.
    """
    found = compile_report.read(out) if out is not None and out.exists() else []
    new = []
    for slice_ in topologies:
        layout = topology.slice_layout(slice_)
        for name in models:
            size = image_size or native_image_size(name)
            network = Forward(name, size, precision)
            for batch_size in batch_sizes:
                row = topology.compile_for(layout, slice_, network, kind, batch_size)
                new.append(row)
                found = [*(old for old in found if not old.same_program(row)), row]
                if out is not None:
                    version = importlib.metadata.version("libtpu")
                    compile_report.write(found, out, version)
    compile_report.show(new, _wide())


def tables(pages: tuple[Path, ...] = (Path("docs/tpu.md"),)) -> None:
    """Make the generated tables of documentation pages anew from the results beside them.

    Args:
        pages: Which pages.
    """
    for page in pages:
        checkpoint.write_text(page, compile_report.refresh(page))


def _wide() -> Console:
    """A terminal, or a file as wide as the tables."""
    console = Console()
    return console if console.is_terminal else Console(width=180)
