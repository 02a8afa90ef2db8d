"""Pretrained weights at another resolution: patches of the same size, but more of them.

In: a `Pretrained` and the wanted image size. Out: weights for the larger image, ready for
fine-tuning. Mixer: block-diagonal token MLPs, one copy per spatial tile (arXiv 2105.01601, appendix
C). ViT: the grid of positions, interpolated (arXiv 2010.11929, section 3.2). BiT takes any size.
"""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from contracts.published import CheckpointError
from contracts.variants import MixerSizes, ViTSizes
from reference.models import Pretrained

Array = npt.NDArray[np.float32]


def at(pretrained: Pretrained, image_size: int) -> Pretrained:
    """The weights for `image_size` pixels per side; raises CheckpointError if it is impossible."""
    before = pretrained.image_size
    if before is None or before == image_size:
        return pretrained
    config, patch = pretrained.config, getattr(pretrained.config, "patch_size", 1)
    if image_size % patch:
        raise CheckpointError(f"image size {image_size}: no multiple of the patch size {patch}")
    match config:
        case MixerSizes():
            if image_size % before:
                raise CheckpointError(
                    f"image size {image_size}: this Mixer was trained at {before} and can be "
                    f"enlarged to its multiples only: {2 * before}, {3 * before}, …"
                )
            return _mixer(pretrained, config, image_size // before, before // patch)
        case ViTSizes():
            return _vit(pretrained, config, before // patch, image_size // patch)
    return pretrained


def with_new_head(pretrained: Pretrained, num_classes: int) -> Pretrained:
    """Replace the head by zeros for other classes: the first loss is that of a uniform guess."""
    params = dict(pretrained.params)
    if "resnet" in params:
        features = params["resnet"]["head"]["conv2d"]["kernel"].shape[2]
        head = {"conv2d": _zeros((1, 1, features, num_classes))}
        params["resnet"] = params["resnet"] | {"head": head}
    else:
        params["head"] = _zeros((params["head"]["kernel"].shape[0], num_classes))
    return dataclasses.replace(pretrained, num_classes=num_classes, params=params)


def without_head(pretrained: Pretrained) -> Pretrained:
    """Replace the head by the identity, so that the logits are the network's features."""
    params = dict(pretrained.params)
    is_bit = "resnet" in params
    head = params["resnet"]["head"]["conv2d"] if is_bit else params["head"]
    features = head["kernel"].shape[-2]
    identity = {
        "kernel": np.eye(features, dtype=np.float32).reshape(
            (*head["kernel"].shape[:-1], features)
        ),
        "bias": np.zeros(features, np.float32),
    }
    if is_bit:
        params["resnet"] = params["resnet"] | {"head": {"conv2d": identity}}
    else:
        params["head"] = identity
    return dataclasses.replace(pretrained, num_classes=features, params=params)


def _zeros(shape: tuple[int, ...]) -> dict[str, Array]:
    return {"kernel": np.zeros(shape, np.float32), "bias": np.zeros(shape[-1:], np.float32)}


def _mixer(pretrained: Pretrained, config: MixerSizes, factor: int, grid: int) -> Pretrained:
    """`factor`: tiles per side. `grid`: tokens per side of a tile."""
    tiles, side = factor * factor, factor * grid
    row, column = np.divmod(np.arange(side * side), side)
    tile = row // grid * factor + column // grid
    # The index of raster token i when tokens are ordered tile by tile.
    place = tile * grid * grid + row % grid * grid + column % grid
    copies = np.eye(tiles, dtype=np.float32)
    params: dict[str, Any] = dict(pretrained.params)
    for index in range(config.num_blocks):
        block = params[f"MixerBlock_{index}"]
        first, second = block["token_mixing"]["Dense_0"], block["token_mixing"]["Dense_1"]
        token_mixing = {
            "Dense_0": {
                "kernel": np.kron(copies, first["kernel"])[place],
                "bias": np.tile(first["bias"], tiles),
            },
            "Dense_1": {
                "kernel": np.kron(copies, second["kernel"])[:, place],
                "bias": np.tile(second["bias"], tiles)[place],
            },
        }
        params[f"MixerBlock_{index}"] = block | {"token_mixing": token_mixing}
    return dataclasses.replace(
        pretrained,
        config=dataclasses.replace(config, tokens_mlp_dim=config.tokens_mlp_dim * tiles),
        image_size=side * config.patch_size,
        params=params,
    )


def _vit(pretrained: Pretrained, config: ViTSizes, before: int, after: int) -> Pretrained:
    transformer = pretrained.params["Transformer"]
    positions = np.asarray(transformer["posembed_input"]["pos_embedding"][0])
    token, grid = np.split(positions, [int(config.class_token)])
    width = positions.shape[-1]
    grid = grid.reshape(before, before, width)
    for axis in (0, 1):
        grid = _stretch(grid, axis, after)
    new = np.concatenate([token, grid.reshape(-1, width)])[None].astype(np.float32)
    params = pretrained.params | {
        "Transformer": transformer | {"posembed_input": {"pos_embedding": new}}
    }
    return dataclasses.replace(pretrained, image_size=after * config.patch_size, params=params)


def _stretch(grid: npt.NDArray[Any], axis: int, count: int) -> npt.NDArray[np.float64]:
    """Linear interpolation along an axis; the first and the last point stay where they are."""
    at_ = np.linspace(0, grid.shape[axis] - 1, count)
    low = np.minimum(at_.astype(int), max(grid.shape[axis] - 2, 0))
    high = np.minimum(low + 1, grid.shape[axis] - 1)
    shape = [1] * grid.ndim
    shape[axis] = count
    share = (at_ - low).reshape(shape)
    mixed: npt.NDArray[np.float64] = (
        grid.take(low, axis) * (1 - share) + grid.take(high, axis) * share
    )
    return mixed
