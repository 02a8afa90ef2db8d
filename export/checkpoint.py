"""Checkpoints: a file of weights becomes a PyTorch module that computes the same logits.

In: an `.npz` in the format that Google publishes for Mixer, ViT and BiT; or a `.safetensors` of
timm or transformers, with the `config.json` beside it. The architecture is read off keys and
shapes. Facts that these do not contain come from the configuration, or must be stated by the user.
Out: a `Classifier`.
"""

import dataclasses
import hashlib
from pathlib import Path

from contracts.published import CheckpointError
from contracts.variants import variant_name
from export.classifier import Classifier, empty_module
from export.formats.array_files import open_arrays
from export.formats.folder import read_beside, weights_of
from export.formats.interpretation import Stated, interpret, is_foreign
from export.models import Gelu, Network
from export.models.parameters import load_published

_NOTHING_STATED = Stated()


def load_classifier(
    path: Path, image_size: int | None = None, stated: Stated = _NOTHING_STATED
) -> Classifier:
    """Read a checkpoint; raises CheckpointError, one sentence, if the checkpoint does not fit.

    `path` is a file of weights, or its folder. `image_size` defaults to the size of the weights
    (224 for BiT, whose files state no size). A Mixer can take whole multiples of the default, ViT
    and BiT any size.
    """
    note = ""
    try:
        weights = weights_of(path)
        with open_arrays(weights) as file:
            if is_foreign(file):
                note = " (the file has another library's keys; these are the published ones)"
            found = interpret(file, read_beside(weights), image_size, stated)
            network = found.network
            if stated.gelu is not None:
                network = _with_gelu(network, stated.gelu)
            size = network.image_size if image_size is None else image_size
            module = empty_module(network, size)
            load_published(module, found.arrays)
        with weights.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}{note}") from None
    return Classifier(
        module=module,
        family=network.family,
        variant=variant_name(network.sizes),
        image_size=size,
        num_classes=network.num_classes,
        source=weights.name,
        sha256=sha256,
        preprocessing=found.preprocessing,
        normalization=stated.normalization or found.normalization,
        activation=found.activation,
        labels=found.labels,
        tag=found.tag,
    )


def _with_gelu(network: Network, form: Gelu) -> Network:
    if network.family == "bit":
        raise CheckpointError(f"a BiT has no GELU, so no form of it can be chosen ({form})")
    return dataclasses.replace(network, flavour=dataclasses.replace(network.flavour, gelu=form))
