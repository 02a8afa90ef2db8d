"""Training and export read the same files, and refuse the same ones in the same words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from contracts.published import CheckpointError
from export.checkpoint import load_classifier
from reference import models
from reference.checkpoint import write_arrays

GOLDEN = Path(__file__).parents[1] / "golden"
MIXER, VIT, BIT = (
    GOLDEN / name / "checkpoint.npz" for name in ("mixer_tiny", "vit_tiny_token", "bit_tiny")
)
Arrays = dict[str, npt.NDArray[Any]]
CONV = "standardized_conv2d"
ROOT = f"resnet/root_block/{CONV}/kernel"
POSITIONS = "Transformer/posembed_input/pos_embedding"


def moved(arrays: Arrays, prefix: str) -> Arrays:
    return {f"{prefix}{key}": value for key, value in arrays.items()} | {
        "opt/state/step": np.array(7)
    }


def renamed(arrays: Arrays, **names: str) -> Arrays:
    return {
        "/".join(names.get(part, part) for part in key.split("/")): value
        for key, value in arrays.items()
    }


def only(arrays: Arrays, key: str) -> None:
    arrays.clear()
    arrays[key] = np.zeros(3, np.float32)


GOOD: dict[str, tuple[Path, Callable[[Arrays], Arrays]]] = {
    "as published": (MIXER, lambda a: a),
    "optimiser's state": (MIXER, lambda a: moved(a, "opt/target/")),
    "doubles": (BIT, lambda a: {k: v.astype(np.float64) for k, v in a.items()}),
    "halves": (VIT, lambda a: {k: v.astype(np.float16) for k, v in a.items()}),
    "numbered convolutions": (BIT, lambda a: renamed(a, standardized_conv2d=f"{CONV}_4")),
    "numbered norms": (BIT, lambda a: renamed(a, group_norm="group_norm_1")),
    "a numbered head": (BIT, lambda a: renamed(a, conv2d="conv2d_1")),
    "vectors as images": (
        BIT,
        lambda a: {k: v.reshape(1, 1, 1, -1) if v.ndim == 1 else v for k, v in a.items()},
    ),
    "Linen's names": (
        VIT,
        lambda a: renamed(
            a,
            LayerNorm_2="LayerNorm_1",
            MultiHeadDotProductAttention_1="MultiHeadDotProductAttention_0",
            MlpBlock_3="MlpBlock_0",
        ),
    ),
    "half of Linen's names": (VIT, lambda a: renamed(a, MlpBlock_3="MlpBlock_0")),
}
BAD: dict[str, tuple[Path, Callable[[Arrays], object]]] = {
    "no head": (MIXER, lambda a: a.pop("head/bias")),
    "one too many": (MIXER, lambda a: a.update(extra=np.zeros(3))),
    "another family's": (MIXER, lambda a: a.update({"resnet/x": np.zeros(3)})),
    "integers": (MIXER, lambda a: a.update({"head/bias": np.zeros(10, int)})),
    "not a number": (MIXER, lambda a: a["head/bias"].fill(np.nan)),
    "beyond float32": (MIXER, lambda a: a.update({"head/bias": np.full(10, 1e300)})),
    "a gap": (MIXER, lambda a: a.update({"MixerBlock_9/x": np.zeros(1)})),
    "no square": (MIXER, lambda a: a.update({"stem/kernel": np.zeros((4, 5, 3, 32))})),
    "grey": (MIXER, lambda a: a.update({"stem/kernel": np.zeros((4, 4, 1, 32))})),
    "no class token": (VIT, lambda a: a.pop("cls")),
    "positions": (VIT, lambda a: a.update({POSITIONS: np.zeros((1, 12, 24))})),
    "a narrow root": (BIT, lambda a: a.update({ROOT: np.zeros((7, 7, 3, 40))})),
    "twice": (BIT, lambda a: a.update({f"{ROOT[:-7]}_1/kernel": a[ROOT]})),
    "units": (BIT, lambda a: a.update({"resnet/block1/unit09/x": np.zeros(1)})),
    "another network": (MIXER, lambda a: only(a, "layers.0.weight")),
    "nothing": (MIXER, lambda a: a.clear()),
}


def written(path: Path, arrays: Arrays) -> Path:
    write_arrays(path, arrays)
    return path


def read(path: Path) -> Arrays:
    with np.load(path) as file:
        return dict(file)


@pytest.mark.parametrize("case", GOOD)
def test_every_spelling_is_the_same_network_to_both(tmp_path: Path, case: str) -> None:
    golden, change = GOOD[case]
    path = written(tmp_path / "c.npz", change(read(golden)))
    trained, exported = models.read(path), load_classifier(path)
    assert trained.config == models.read(golden).config
    assert (exported.family, exported.num_classes) == (trained.config.family, trained.num_classes)
    assert trained.image_size in (exported.image_size, None)


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused_by_both_in_the_same_words(tmp_path: Path, case: str) -> None:
    golden, change = BAD[case]
    arrays = read(golden)
    change(arrays)
    path = written(tmp_path / "c.npz", arrays)
    with pytest.raises(CheckpointError) as trained:
        models.read(path)
    with pytest.raises(CheckpointError) as exported:
        load_classifier(path)
    assert str(trained.value) == str(exported.value)
    assert str(path) in str(trained.value)


@pytest.mark.parametrize(
    "content",
    [b"PK\x03\x04", MIXER.read_bytes()[:-1000], MIXER.read_bytes()[:5000]],
    ids=["a start", "most", "some"],
)
def test_damaged_files_are_refused_by_both_in_the_same_words(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "c.npz"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as trained:
        models.read(path)
    with pytest.raises(CheckpointError) as exported:
        load_classifier(path)
    assert str(trained.value) == str(exported.value)
