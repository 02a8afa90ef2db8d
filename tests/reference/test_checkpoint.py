"""Reading and writing the published format: what is refused, in which words, and what survives."""

import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from contracts.published import CheckpointError
from reference import checkpoint, evaluate, models

GOLDEN = Path(__file__).parents[1] / "golden/mixer_tiny/checkpoint.npz"


def arrays() -> checkpoint.Arrays:
    return dict(np.load(GOLDEN))


def test_what_is_written_reads_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "new/copy.npz"
    checkpoint.write_arrays(path, arrays() | {"file": np.ones(3)})
    with np.load(path, allow_pickle=False) as copy:
        assert set(copy.files) == arrays().keys() | {"file"}
        for key, value in arrays().items():
            np.testing.assert_array_equal(copy[key], value)
    assert [entry.name for entry in path.parent.iterdir()] == ["copy.npz"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    checkpoint.write_arrays(path, arrays())
    before = path.read_bytes()
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        checkpoint.write_arrays(path, {"a": np.ones(2), "b": np.array([object()])})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.npz"]


def test_optimiser_state_files_are_read_too(tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    prefixed = {f"opt/target/{key}": value for key, value in arrays().items()}
    checkpoint.write_arrays(path, prefixed | {"opt/state/step": np.asarray(7)})
    assert models.read(path).config == models.read(GOLDEN).config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head/kernel": None}, r"head/kernel: expected an array \[C, K\], found no such key"),
        ({"head/bias": None}, r"head/bias: expected shape \(10,\), found no such key"),
        ({"cls": np.ones((1, 1, 32))}, r"cls: expected no such key, found shape \(1, 1, 32\)"),
        ({"stem/bias": np.ones(31)}, r"stem/bias: expected shape \(32,\), found shape \(31,\)"),
        (
            {"MixerBlock_2/LayerNorm_1/scale": None},
            r"MixerBlock_2/LayerNorm_1/scale: expected shape \(32,\), found no such key",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_key(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = tmp_path / "wrong.npz"
    changed = {k: np.asarray(v) for k, v in (arrays() | change).items() if v is not None}
    checkpoint.write_arrays(path, changed)
    with pytest.raises(CheckpointError, match=message):
        models.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"expected an \.npz file of plain arrays, found an empty file"),
        (b"not a zip archive", r"expected an \.npz file of plain arrays, found .* begins with"),
        (GOLDEN.read_bytes()[:5000], r"expected a whole \.npz archive, found"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "foreign.npz"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"foreign\.npz: {message}"):
        models.read(path)


def pytorch_file() -> bytes:
    """What torch.save writes: a zip archive with a pickle in it."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
    return made.getvalue()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (pytorch_file(), "PyTorch"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "begins with"),
        (b"\x93NUMPY\x01\x00v\x00", "begins with"),
    ],
    ids=["pytorch", "old-pytorch", "npy"],
)
def test_another_librarys_file_is_named_in_a_users_words(
    tmp_path: Path, content: bytes, named: str
) -> None:
    """As a wrong --start-from gets it."""
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as refused:
        models.read(path)
    assert named in str(refused.value)
    assert "pickle" not in str(refused.value).lower()


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "pickle.npz"
    np.savez(path, payload=np.array([{"a": 1}], dtype=object))
    with pytest.raises(CheckpointError, match=r"payload: expected .*, found pickled"):
        models.read(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent\.npz: no such file"):
        models.read(tmp_path / "absent.npz")


@pytest.mark.parametrize(
    ("record", "message"),
    [('{"image_size": 3', "found Expecting ','"), ("[1, 2]", r"found '\[1, 2\]'")],
)
def test_a_broken_record_beside_a_checkpoint_is_refused(
    tmp_path: Path, record: str, message: str
) -> None:
    """Without it, images would be resized by another rule."""
    path = tmp_path / "model.npz"
    shutil.copy(GOLDEN, path)
    assert evaluate.record_beside(path) == {}
    path.with_suffix(".json").write_text(record)
    with pytest.raises(CheckpointError, match=rf"model\.json: expected the config.*, {message}"):
        evaluate.open_network(path)
