"""Folders of weights, with the configurations that lie beside the arrays.

In: the path of a file, or of a folder that holds one. Out: the file of arrays, and the JSON files
with the facts that the arrays do not contain.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

from contracts.published import CheckpointError

_PICKLES = ("pytorch_model.bin", "*.pt", "*.pth", "*.ckpt")


@dataclasses.dataclass(frozen=True)
class Beside:
    """The configurations beside a file of arrays; None for a configuration that is not there."""

    config: dict[str, Any] | None = None  # config.json
    preprocessor: dict[str, Any] | None = None  # preprocessor_config.json, of transformers

    @property
    def library(self) -> Literal["timm", "transformers"] | None:
        """Which library wrote the configuration."""
        if self.config is None:
            return None
        if "architecture" in self.config:
            return "timm"
        return "transformers" if "model_type" in self.config else None


def weights_of(path: Path) -> Path:
    """The file of arrays of a folder; a path that is no folder is returned unchanged.

    Raises CheckpointError where a folder holds no file of arrays, or several.
    """
    if not path.is_dir():
        return path
    found = sorted({*path.glob("*.safetensors"), *path.glob("*.npz")})
    usual = path / "model.safetensors"
    if usual in found or len(found) == 1:
        return usual if usual in found else found[0]
    if (path / "model.safetensors.index.json").is_file():
        raise CheckpointError(
            f"expected one model.safetensors, found weights in {len(found)} parts; join them "
            "(save_pretrained with a larger max_shard_size does)"
        )
    if found:
        names = ", ".join(each.name for each in found)
        raise CheckpointError(f"expected one file of weights, found {names}; name one of them")
    if any(next(path.glob(pattern), None) for pattern in _PICKLES):
        raise CheckpointError(
            "expected model.safetensors, found pickled weights alone, which are never loaded; save "
            "them with safe_serialization=True, or with safetensors.torch.save_file"
        )
    raise CheckpointError("expected a folder with model.safetensors or an .npz in it, found none")


def read_beside(weights: Path) -> Beside:
    """The configurations beside a file of arrays; raises CheckpointError if one is no object."""
    return Beside(
        _read_object(weights.with_name("config.json")),
        _read_object(weights.with_name("preprocessor_config.json")),
    )


def _read_object(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path.name}: expected a JSON object, found {error}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path.name}: expected a JSON object, found {str(found)[:60]!r}")
    return found
