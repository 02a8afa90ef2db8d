"""The commands of `python -m reference`: what each flag means, and what is printed."""

from pathlib import Path
from typing import Annotated

import tyro

from reference import checkpoint, data, parallel
from reference import evaluate as evaluation
from reference import train as training
from reference.config import ConfigError, TrainConfig

UserError = (checkpoint.CheckpointError, data.DataError, ConfigError)


def train(
    config: Annotated[TrainConfig, tyro.conf.arg(name="")],
    *,
    data: Path,
    out: Path,
    resume: bool = False,
    refuse_broken: bool = False,
    distributed: bool = False,
    coordinator: str = "",
    processes: int = 1,
    process: int = 0,
) -> None:
    """Train a network on a folder of pictures, or fine-tune a checkpoint on it.

    Args:
        config: What the run computes.
        data: A folder with train/<class>/*.jpg inside, or the file cifar-10-python.tar.gz.
        out: The checkpoint to write (.npz); its state, log and configuration lie beside it.
        resume: Go on from the state beside --out.
        refuse_broken: End at the first file that is no picture, instead of skipping it by name.
        distributed: Train together with other processes: the same command on every host of a TPU
            pod or of a Slurm job, which say the rest themselves.
        coordinator: Elsewhere: HOST:PORT of process 0. --data and --out must be shared folders.
        processes: Elsewhere: how many processes there are.
        process: Elsewhere: which of them this is, from 0.
    """
    if distributed or coordinator:
        parallel.join(coordinator, processes, process)
    accuracy = training.train(config, data, out, resume=resume, refuse_broken=refuse_broken)
    print(f"{out}: accuracy {accuracy:.2%} on {config.validation} held-back training pictures")


def evaluate(
    checkpoint_file: Annotated[Path, tyro.conf.arg(name="checkpoint")],
    data_source: Annotated[Path, tyro.conf.arg(name="data")],
    split: str = "test",
    image_size: int | None = None,
) -> None:
    """Measure a checkpoint's accuracy; Mixer, ViT or BiT.

    Args:
        checkpoint_file: An .npz file in the published format.
        data_source: A folder with SPLIT/<class>/*.jpg inside, or the file cifar-10-python.tar.gz.
        split: Which folder: train or test.
        image_size: Pixels per side, for BiT, which takes any; its default is 224.
    """
    found = evaluation.evaluate_file(checkpoint_file, data_source, split, image_size)
    print(
        f"top-1 accuracy {found.top1:.2%}, top-5 {found.top5:.2%}, "
        f"on {found.pictures} pictures of {data_source}, {split}"
    )
