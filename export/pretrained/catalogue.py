"""The published weights that this program knows by name, and the facts about each.

In: `catalogue.csv`. Out: a row for each name: timm's models on Hugging Face's hub by timm's name,
Google's files by their address in its storage (gs://BUCKET/OBJECT). Names, top-1 (in percent, on
ImageNet-1k's validation images) and rules are from the publishers: timm 1.0.31 and its
results-imagenet.csv, the READMEs and evaluations of google-research/vision_transformer, big_vision
and big_transfer. Where a publisher resizes by averaging over areas, the row has bilinear with
antialiasing, the most similar method of the gateway. All weights are Apache-2.0. Two names, of
GSAM's and SAM's Mixers, are documented only by the folders in their README and by scripts of other
authors.
"""

import csv
import dataclasses
import functools
from pathlib import Path
from typing import Literal, cast

from export.preprocessing import Interpolation, Preprocessing, Resize

LICENCE = "Apache-2.0"
_TABLE = Path(__file__).with_name("catalogue.csv")


@dataclasses.dataclass(frozen=True)
class Published:
    """One row: published weights."""

    name: str
    variant: str  # of contracts.variants
    classes: int
    image_size: int  # pixels per side
    preprocessing: Preprocessing  # weights of the hub use their own configuration instead
    top1: float | None  # percent; None: the publisher states no top-1

    @property
    def at(self) -> Literal["hub", "google"]:
        """The kind of storage that has the weights."""
        return "google" if self.name.startswith("gs://") else "hub"

    @property
    def flags(self) -> str:
        """The flags of a command line for these weights if their file is here already."""
        rule = self.preprocessing
        crop = f" --crop-fraction {rule.crop_fraction:g}" if rule.crop_fraction < 1 else ""
        antialias = "" if rule.antialias else " --no-antialias"
        return f"--resize {rule.resize} --interpolation {rule.interpolation}{crop}{antialias}"

    @property
    def rule(self) -> str:
        """The rule for preparing an image, as text for people."""
        rule, size = self.preprocessing, self.image_size
        if rule.resize == "squash":
            how = f"squashed to {size}"
        elif rule.crop_fraction < 1:
            how = f"short side {int(size / rule.crop_fraction)}, centre {size}"
        else:
            how = f"short side and centre {size}"
        return f"{how}, {rule.interpolation}{'' if rule.antialias else ', not antialiased'}"


@functools.cache
def catalogue() -> dict[str, Published]:
    """Every row by its name."""
    with _TABLE.open(encoding="utf-8", newline="") as file:
        return {row["name"]: _published(row) for row in csv.DictReader(file)}


def _published(row: dict[str, str]) -> Published:
    google = row["name"].startswith("gs://")
    return Published(
        row["name"],
        row["variant"],
        int(row["classes"]),
        int(row["pixels"]),
        Preprocessing(
            cast(Resize, row["resize"]),
            cast(Interpolation, row["interpolation"]),
            row["antialias"] == "yes",
            float(row["crop"]),
            "tensorflow" if google else "torchvision",
        ),
        float(row["top1"]) if row["top1"] else None,
    )
