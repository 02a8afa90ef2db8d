"""The meaning of a file of weights, in one form for all libraries.

In: an open file of arrays and the configurations beside it. Out: the arrays by their published
names, the network, and its rule for preparing images. A fact that neither the arrays nor the
configurations contain must be stated by the user, and is never guessed.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from contracts.npz import Arrays, PublishedArrays
from contracts.published import CheckpointError, read_contents
from export.formats import class_names, timm_preprocessing, transformers
from export.formats.array_files import ArrayFile
from export.formats.folder import Beside
from export.formats.timm_architectures import TimmSettings, read_settings
from export.formats.timm_keys import (
    ViTArrays,
    family_of,
    is_plain_vit,
    published_arrays,
    vit_arrays,
)
from export.models import Flavour, Gelu, Grid, Network
from export.preprocessing import (
    USUAL_NORMALIZATION,
    USUAL_PREPROCESSING,
    Activation,
    Normalization,
    Preprocessing,
)

USUAL_BIT_SIZE = 224  # pixels per side; a BiT's weights fit any size, and state none


@dataclasses.dataclass(frozen=True)
class Stated:
    """A user's statements about weights, for facts that their file lacks; None: no statement."""

    gelu: Gelu | None = None
    heads: int | None = None  # of a ViT
    normalization: Normalization | None = None


@dataclasses.dataclass(frozen=True)
class Interpreted:
    """The meaning of a file and its configuration."""

    arrays: Arrays
    network: Network
    preprocessing: Preprocessing = USUAL_PREPROCESSING
    normalization: Normalization = USUAL_NORMALIZATION
    activation: Activation = "softmax"
    labels: list[str] | None = None
    tag: str = ""  # timm's tag of its weights: the data of their training


def is_foreign(file: ArrayFile) -> bool:
    """Whether the names of the arrays are those of timm or transformers, not Google's."""
    return _is_transformers(file) or family_of(file.shapes) is not None


def interpret(
    file: ArrayFile, beside: Beside, image_size: int | None, stated: Stated
) -> Interpreted:
    """Read a file; raises CheckpointError if a fact is missing, wrong or unknown."""
    if _is_transformers(file):
        return _interpret_transformers(file, beside, stated)
    family = family_of(file.shapes)
    if family is not None:
        return _interpret_timm(file, family, beside, image_size, stated)
    if stated.heads is not None:
        raise CheckpointError("--heads is for a ViT of timm or transformers; this file states them")
    published = PublishedArrays(file)
    return Interpreted(published, _read_network(published, Flavour()))


def _interpret_timm(
    file: ArrayFile, family: str, beside: Beside, image_size: int | None, stated: Stated
) -> Interpreted:
    config: Mapping[str, Any] = beside.config or {}
    settings = _timm_settings(file, family, beside, stated)
    pretrained_cfg = timm_preprocessing.pretrained_cfg(file.metadata, config)
    arrays: Arrays
    if family == "vit":
        vit = vit_arrays(file, settings.heads, prefix_has_positions=settings.prefix_has_positions)
        arrays, network = vit.arrays, _vit_network(vit, settings, "smooth")
    else:
        arrays = published_arrays(file, family)
        flavour = Flavour(gelu=settings.gelu, standardization_epsilon=1e-8)
        network = _read_network(arrays, flavour)
    if family == "bit":
        trained = timm_preprocessing.image_size(pretrained_cfg, network.image_size)
        network = dataclasses.replace(network, image_size=trained)
    size = network.image_size if image_size is None else image_size
    return Interpreted(
        arrays,
        network,
        timm_preprocessing.preprocessing(pretrained_cfg, family, network.image_size, size),
        timm_preprocessing.normalization(pretrained_cfg),
        labels=class_names.from_timm(config, network.num_classes),
        tag=str(pretrained_cfg.get("tag", "")),
    )


def _timm_settings(file: ArrayFile, family: str, beside: Beside, stated: Stated) -> TimmSettings:
    """The settings of timm's code for these arrays; raises CheckpointError if they are unknown."""
    if beside.library == "transformers":
        raise CheckpointError("config.json is of transformers, but the arrays have timm's names")
    if beside.config is not None:
        settings = read_settings(beside.config, family)
        if family != "vit":
            return settings
        return dataclasses.replace(settings, heads=_heads(settings.heads, stated))
    if family != "vit":
        return TimmSettings(family, pool="mean")
    if not is_plain_vit(file.shapes):
        raise CheckpointError(
            "these arrays of a ViT do not tell how they are computed with: put timm's config.json "
            "beside the file"
        )
    return TimmSettings(family, heads=_heads(None, stated))


def _vit_network(vit: ViTArrays, settings: TimmSettings, grid: Grid) -> Network:
    if settings.pool == "token" and not vit.sizes.class_token:
        raise CheckpointError("cls_token: expected the class token that is classified, found none")
    flavour = Flavour(
        gelu=settings.gelu,
        layer_norm_epsilon=settings.layer_norm_epsilon,
        pool=settings.pool,
        prefix_tokens=vit.prefix_tokens,
        pre_norm=vit.pre_norm,
        norm_after_pooling=vit.norm_after_pooling,
        grid=grid,
    )
    return Network(vit.sizes, vit.image_size, vit.num_classes, flavour)


def _interpret_transformers(file: ArrayFile, beside: Beside, stated: Stated) -> Interpreted:
    if beside.library != "transformers" or beside.config is None:
        raise CheckpointError(
            "the arrays have transformers' names: expected its config.json beside them, which says "
            "how they are computed with"
        )
    settings = transformers.read_settings(beside.config)
    renamed = transformers.timm_names(file)
    arrays: Arrays
    if settings.family == "vit":
        timm = TimmSettings(
            "vit",
            _heads(settings.heads, stated),
            gelu=settings.gelu,
            layer_norm_epsilon=settings.layer_norm_epsilon,
        )
        vit = vit_arrays(renamed, timm.heads, prefix_has_positions=True)
        arrays, network = vit.arrays, _vit_network(vit, timm, "bicubic")
    else:
        arrays = published_arrays(renamed, "bit")
        network = _read_network(arrays, Flavour(standardization_epsilon=1e-8))
    if beside.preprocessor is None:
        if stated.normalization is None:
            raise CheckpointError(
                "expected preprocessor_config.json beside the weights, found none; without it say "
                "how images are prepared: --mean R G B --std R G B, --resize and --image-size"
            )
        size, preprocessing, normalization = (
            network.image_size,
            USUAL_PREPROCESSING,
            stated.normalization,
        )
    else:
        size, preprocessing, normalization = transformers.preprocessing(
            beside.preprocessor, settings.family
        )
    if settings.family == "bit":
        network = dataclasses.replace(network, image_size=size)
    elif size != network.image_size:
        raise CheckpointError(
            f"preprocessor_config.json: images are made {size} pixels wide, but the weights have "
            f"positions for {network.image_size}"
        )
    return Interpreted(
        arrays,
        network,
        preprocessing,
        normalization,
        settings.activation,
        class_names.from_transformers(beside.config, network.num_classes),
    )


def _heads(configured: int | None, stated: Stated) -> int:
    if configured and stated.heads not in (None, configured):
        raise CheckpointError(f"--heads {stated.heads}: config.json says {configured}")
    if heads := configured or stated.heads:
        return heads
    raise CheckpointError(
        "the number of a ViT's heads is not in its arrays: put the config.json that belongs to "
        "them beside the file, or say --heads N"
    )


def _read_network(arrays: Arrays, flavour: Flavour) -> Network:
    contents = read_contents(arrays.shapes)
    size = contents.image_size or USUAL_BIT_SIZE
    return Network(contents.sizes, size, contents.num_classes, flavour)


def _is_transformers(file: ArrayFile) -> bool:
    return any(key.startswith(("vit.", "bit.")) for key in file.shapes)
