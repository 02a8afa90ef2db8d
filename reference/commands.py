"""The commands of `python -m reference`: what each flag means, and what is printed."""

from pathlib import Path
from typing import Annotated

import tyro

from reference import checkpoint, data
from reference import train as training
from reference.config import ConfigError, TrainConfig
from reference.mixer import MlpMixer

UserError = (checkpoint.CheckpointError, data.DataError, ConfigError)


def train(
    config: Annotated[TrainConfig, tyro.conf.arg(name="")],
    data: Path,
    out: Path,
    resume: bool = False,
    refuse_broken: bool = False,
) -> None:
    """Train a Mixer on a folder of pictures.

    Args:
        config: What the run computes.
        data: A folder with train/<class>/*.jpg inside, or the file cifar-10-python.tar.gz.
        out: The checkpoint to write (.npz); its state, log and configuration lie beside it.
        resume: Go on from the state beside --out.
        refuse_broken: End at the first file that is no picture, instead of skipping it by name.
    """
    accuracy = training.train(config, data, out, resume=resume, refuse_broken=refuse_broken)
    print(f"{out}: accuracy {accuracy:.2%} on {config.validation} held-back training pictures")


def evaluate(
    checkpoint_file: Annotated[Path, tyro.conf.arg(name="checkpoint")],
    data_source: Annotated[Path, tyro.conf.arg(name="data")],
    split: str = "test",
) -> None:
    """Measure a checkpoint's accuracy.

    Args:
        checkpoint_file: An .npz file in the published format.
        data_source: A folder with SPLIT/<class>/*.jpg inside, or the file cifar-10-python.tar.gz.
        split: Which folder: train or test.
    """
    config, num_classes, params = checkpoint.read_mixer(checkpoint_file)
    model = MlpMixer(config, num_classes)
    tokens = params["MixerBlock_0"]["token_mixing"]["Dense_0"]["kernel"].shape[0]
    image_size = config.patch_size * round(tokens**0.5)
    dataset = data.load(data_source, split, image_size)
    accuracy = training.evaluate(training.make_predict(model), params, dataset)
    print(f"top-1 accuracy {accuracy:.2%} on {len(dataset)} pictures of {data_source}, {split}")
