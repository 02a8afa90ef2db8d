"""Files that are no checkpoint, and arrays that do not fit: each is refused in a sentence."""

import io
import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from contracts.published import CheckpointError
from export.checkpoint import load_classifier
from export.formats.array_files import open_arrays
from tests import numpy_models
from tests.export.checkpoints import BIT, MIXER, VIT, Arrays, read
from tests.numpy_models import MixerSizes, save


def changed(path: Path, change: Callable[[Arrays], object]) -> Arrays:
    arrays = read(path)
    change(arrays)
    return arrays


W1 = "MixerBlock_0/token_mixing/Dense_0/kernel"
POSITIONS = "Transformer/posembed_input/pos_embedding"
QUERY = "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel"
ROOT = "resnet/root_block/standardized_conv2d/kernel"


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        (MIXER, lambda a: a.pop("head/bias"), r"head/bias: expected shape \(10,\), found no such"),
        (MIXER, lambda a: a.pop("head/kernel"), "head/kernel: expected an array .* found no such"),
        (MIXER, lambda a: a.update(extra=a["head/bias"]), r"extra: expected no such key, found sh"),
        (MIXER, lambda a: a.update({"head/bias": np.zeros(3)}), r"head/bias: .*\(10,\).*\(3,\)"),
        (MIXER, lambda a: a.pop("stem/kernel"), "stem/kernel: expected an array .P, P, 3, C."),
        (MIXER, lambda a: a.update({"stem/kernel": np.zeros((4, 4, 1, 32))}), r"stem/kernel.*P, 3"),
        (MIXER, lambda a: a.update({"stem/kernel": np.zeros((4, 5, 3, 32))}), r"stem/kernel.*4, 4"),
        (MIXER, lambda a: a.update({W1: np.zeros((63, 16))}), "square number of tokens, found 63"),
        (MIXER, lambda a: a.update({"MixerBlock_9/x": np.zeros(1)}), "MixerBlock_.*without a gap"),
        (MIXER, lambda a: a.update({"head/bias": np.zeros(10, np.int32)}), "floating.*int32"),
        (MIXER, lambda a: a["head/bias"].fill(np.nan), "head/bias: expected finite numbers"),
        (MIXER, lambda a: a.clear(), "zip archive without any .npy"),
        (VIT, lambda a: a.pop("cls"), "no cls"),
        (VIT, lambda a: a.update({POSITIONS: np.zeros((1, 16, 24))}), "square number of positions"),
        (VIT, lambda a: a.update({QUERY: np.zeros((24, 5, 8))}), "heads × width of a head = 24"),
        (VIT, lambda a: a.update({QUERY: np.zeros((24, 24))}), r"query/kernel: .*d, h, e"),
        (VIT, lambda a: a.update({"pre_logits/bias": np.zeros(24)}), "pre_logits/kernel: expected"),
        (BIT, lambda a: a.update({ROOT: np.zeros((7, 7, 3, 40))}), "multiple of 32 channels"),
        (BIT, lambda a: a.pop("resnet/group_norm/beta"), "resnet/group_norm/beta: expected shape"),
        (BIT, lambda a: a.update({"resnet/block6/unit01/x": np.zeros(1)}), "block.*without a gap"),
        (BIT, lambda a: a.update({f"{ROOT[:-7]}_1/kernel": a[ROOT]}), "one array of this meaning"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_arrays_that_do_not_fit(
    tmp_path: Path, path: Path, change: Callable[[Arrays], object], message: str
) -> None:
    broken = save(tmp_path / "broken.npz", changed(path, change))
    with pytest.raises(CheckpointError, match=message) as error:
        load_classifier(broken)
    assert str(error.value).startswith(f"{broken}: ")
    assert "\n" not in str(error.value)


def pickled() -> bytes:
    file = io.BytesIO()
    np.savez(file, params=np.array({"stem": Trap()}, dtype=object), allow_pickle=True)
    return file.getvalue()


class Trap:
    """Unpickled, it would fail the test."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return pytest.fail, ("the checkpoint was unpickled",)


def single_array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


def flipped() -> bytes:
    data = bytearray(MIXER.read_bytes())
    data[len(data) // 2] ^= 255
    return bytes(data)


def foreign_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02.")
    return file.getvalue()


def members(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of the name that is there twice
        for name in names:
            archive.writestr(f"{name}.npy", single_array())
    return file.getvalue()


def headed(header: bytes) -> bytes:
    """One array, of which there is the header alone."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
        archive.writestr("stem/kernel.npy", data)
    return file.getvalue()


HUGE = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }\n"  # 4 TB


def packed(method: int) -> bytes:
    """One array, compressed as NumPy never does."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("stem/kernel.npy", single_array())
    return file.getvalue()


def safetensors_of_six_bits() -> bytes:
    """PyTorch has no such numbers."""
    array = {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}
    header = json.dumps({W1: array}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: b"", "found an empty file"),
        (lambda: b"PK\x03\x04 and nothing else", "expected a whole .npz archive"),
        (lambda: MIXER.read_bytes()[:-1000], "expected a whole .npz archive"),
        (flipped, "expected a readable array, found Bad CRC"),
        (pickled, "params: expected an array of numbers, found pickled Python objects"),
        (
            lambda: pickle.dumps({"stem": 1}),
            "expected an .npz or .safetensors file, found a file th",
        ),
        (single_array, "expected an .npz or .safetensors file"),
        (foreign_zip, "zip archive without any .npy"),
        (
            lambda: members("layers.0.weight"),
            "expected the keys of a Mixer .* found 1 keys: layers.0.weight",
        ),
        (lambda: members("a", "a"), "a: expected one array of this name, found two"),
        (lambda: headed(HUGE), "stem/kernel: expected 4000000000000 bytes .* found 0"),
        (lambda: headed(b"{'descr': (\n"), "kernel: expected a readable array, found .*EOF in"),
        (lambda: headed(b"{[]: 1}\n"), "kernel: expected a readable array, found unhashable type"),
        (lambda: headed(b"  a\n b\n"), "kernel: expected a readable array, found unindent does"),
        (lambda: packed(zipfile.ZIP_LZMA), "kernel: .* found compression method 14"),
        (lambda: struct.pack("<Q", 10) + b'{"a":1}   ', "expected a whole .safetensors file"),
        (lambda: struct.pack("<Q", 1 << 40) + b"{", "expected a whole .safetensors file"),
        (lambda: b"<html>404 Not Found</html>", "a text file that begins with '<html>404'"),
        (lambda: b"\xff\xd8\xff\xe0" + bytes(20), ".safetensors file, found a JPEG image"),
    ],
)
def test_files_that_are_no_checkpoint(
    tmp_path: Path, content: Callable[[], bytes], message: str
) -> None:
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(content())
    with pytest.raises(CheckpointError, match=message) as error:
        load_classifier(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_an_array_that_pytorch_cannot_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_of_six_bits())
    with (
        open_arrays(path) as file,
        pytest.raises(CheckpointError, match=f"{W1}: expected a readable array, found .*F6_E2M3"),
    ):
        file.read(W1)


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        load_classifier(tmp_path / "missing.npz")
    with pytest.raises(CheckpointError, match=r"expected a folder with model\.safetensors"):
        load_classifier(tmp_path)


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    data = save(tmp_path / "whole", numpy_models.mixer_checkpoint(MixerSizes(1, 2, 1, 1, 1, 1, 1)))
    whole = data.read_bytes()
    path = tmp_path / "cut.npz"
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            load_classifier(path)
