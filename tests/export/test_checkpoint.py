"""Reading checkpoints: what a file says of itself, each spelling of it, each way to be wrong."""

import hashlib
import io
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.numpy import save_file

from contracts.published import CheckpointError
from contracts.variants import VARIANTS
from export.checkpoint import load_classifier
from export.classifier import Classifier
from export.formats.interpretation import Stated
from export.preprocessing import Preprocessing
from export.random_weights import random_classifier
from tests import numpy_models
from tests.numpy_models import MixerSizes, ViTSizes, save

GOLDEN = Path(__file__).parents[1] / "golden"
MIXER = GOLDEN / "mixer_tiny" / "checkpoint.npz"
VIT = GOLDEN / "vit_tiny_token" / "checkpoint.npz"
BIT = GOLDEN / "bit_tiny" / "checkpoint.npz"
Arrays = dict[str, npt.NDArray[Any]]


def read(path: Path) -> Arrays:
    with np.load(path) as file:
        return dict(file)


def logits(classifier: Classifier, size: int = 32) -> npt.NDArray[np.float32]:
    images = torch.rand(2, size, size, 3, generator=torch.Generator().manual_seed(3)) * 2 - 1
    with torch.no_grad():
        values: npt.NDArray[np.float32] = classifier.module(images).numpy()
    return values


def test_a_checkpoint_says_what_it_is() -> None:
    mixer = load_classifier(MIXER)
    assert (mixer.family, mixer.image_size, mixer.num_classes) == ("mixer", 32, 10)
    assert mixer.variant is None
    assert mixer.preprocessing == Preprocessing("squash", "bilinear", True, 1.0)
    assert mixer.source == "checkpoint.npz"
    assert mixer.sha256 == hashlib.sha256(MIXER.read_bytes()).hexdigest()
    assert not mixer.module.training
    assert not any(p.requires_grad for p in mixer.module.parameters())
    assert load_classifier(VIT).variant == "vit_testing"


@pytest.mark.parametrize(
    "variant", ["mixer_testing", "mixer_cifar10", "vit_testing", "bit_testing"]
)
def test_saved_and_loaded_again_a_model_is_the_same(tmp_path: Path, variant: str) -> None:
    """The parameters of a module, written in the published layout, give the module back."""
    first = random_classifier(variant, seed=5)
    arrays: Arrays = {}
    for name, parameter in first.module.named_parameters():
        arrays[name.replace(".", "/")] = parameter.numpy()
    from_file = {
        "mixer": lambda: unlay_mixer(arrays),
        "vit": lambda: unlay_vit(arrays, heads=3),
        "bit": lambda: unlay_bit(arrays),
    }[first.family]()
    second = load_classifier(save(tmp_path / "again.npz", from_file), first.image_size)
    assert (second.variant, second.num_classes) == (variant, first.num_classes)
    for (name, a), b in zip(
        first.module.named_parameters(), second.module.parameters(), strict=True
    ):
        # BiT's standardisation, applied twice, differs by its epsilon.
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6, msg=name)


def unlay_mixer(arrays: Arrays) -> Arrays:
    patch = round((arrays["stem/kernel"].shape[0] / 3) ** 0.5)
    arrays["stem/kernel"] = arrays["stem/kernel"].reshape(patch, patch, 3, -1)
    for key in [key for key in arrays if "token_mixing" in key]:
        arrays[key] = arrays[key].T.copy() if key.endswith("kernel") else arrays[key][:, 0]
    return arrays


def unlay_vit(arrays: Arrays, heads: int) -> Arrays:
    patch = round((arrays["embedding/kernel"].shape[0] / 3) ** 0.5)
    arrays["embedding/kernel"] = arrays["embedding/kernel"].reshape(patch, patch, 3, -1)
    for key in [key for key in arrays if "MultiHeadDotProductAttention_1" in key]:
        width = arrays[key].shape[-1]
        split = (heads, width // heads)
        if "/out/" not in key:
            arrays[key] = arrays[key].reshape(*arrays[key].shape[:-1], *split)
        elif key.endswith("kernel"):
            arrays[key] = arrays[key].reshape(*split, width)
    return arrays


def unlay_bit(arrays: Arrays) -> Arrays:
    for key in [key for key in arrays if key.endswith("standardized_conv2d/kernel")]:
        arrays[key] = arrays[key].transpose(2, 3, 1, 0).copy()
    head = arrays["resnet/head/conv2d/kernel"]
    arrays["resnet/head/conv2d/kernel"] = head.reshape(1, 1, *head.shape)
    return arrays


@pytest.mark.parametrize("name", ["vit_tiny_token", "vit_tiny_gap", "vit_tiny_token_prelogits"])
def test_both_naming_generations_are_one_model(name: str) -> None:
    old = load_classifier(GOLDEN / name / "checkpoint.npz")
    new = load_classifier(GOLDEN / name / "checkpoint_linen_names.npz")
    np.testing.assert_array_equal(logits(old), logits(new))


def spelled(change: str) -> tuple[Arrays, Path]:
    """A golden checkpoint as another publisher spells it, and the golden one."""
    path = BIT if "BiT" in change else MIXER
    arrays = read(path)
    match change:
        case "optimizer state":
            arrays = {f"opt/target/{key}": value for key, value in arrays.items()}
            arrays["opt/state/step"] = np.array(7)
            arrays["opt/state/param_states/stem/kernel/momentum"] = np.zeros(3, np.float32)
        case "numbered scopes of BiT":
            arrays = {
                key.replace("standardized_conv2d", "standardized_conv2d_3"): value
                for key, value in arrays.items()
            }
        case "vectors of BiT as images":
            arrays = {k: v.reshape(1, 1, 1, -1) if v.ndim == 1 else v for k, v in arrays.items()}
        case "double precision":
            arrays = {key: value.astype(np.float64) for key, value in arrays.items()}
        case "Fortran's order":
            arrays = {key: np.asfortranarray(value) for key, value in arrays.items()}
    return arrays, path


@pytest.mark.parametrize(
    "change",
    [
        "optimizer state",
        "numbered scopes of BiT",
        "vectors of BiT as images",
        "double precision",
        "Fortran's order",
    ],
)
def test_other_spellings_are_the_same_model(tmp_path: Path, change: str) -> None:
    arrays, golden = spelled(change)
    found = load_classifier(save(tmp_path / "other.npz", arrays), image_size=32)
    np.testing.assert_array_equal(logits(found), logits(load_classifier(golden, image_size=32)))


def test_the_format_is_read_off_the_content_not_off_the_name(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(MIXER.read_bytes())
    assert load_classifier(path).family == "mixer"
    save_file(read(MIXER), path)
    np.testing.assert_array_equal(logits(load_classifier(path)), logits(load_classifier(MIXER)))


def test_gelu_can_be_chosen(tmp_path: Path) -> None:
    arrays = numpy_models.vit_checkpoint(ViTSizes(4, 18, 2, 3, 24, 2))
    path = save(tmp_path / "v.npz", arrays)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32)
    for form in ("tanh", "erf"):
        with torch.no_grad():
            found = (
                load_classifier(path, stated=Stated(gelu=form))
                .module(torch.from_numpy(images))
                .numpy()
            )
        expected = numpy_models.vit(arrays, images.astype(np.float64), form)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(CheckpointError, match="BiT has no GELU"):
        load_classifier(BIT, stated=Stated(gelu="erf"))


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


def huge_array() -> bytes:
    """A header that claims 4 TB."""
    file = io.BytesIO()
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }\n"
    with zipfile.ZipFile(file, "w") as archive:
        data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
        archive.writestr("stem/kernel.npy", data)
    return file.getvalue()


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
        (huge_array, "stem/kernel: expected 4000000000000 bytes .* found 0"),
        (lambda: struct.pack("<Q", 10) + b'{"a":1}   ', "expected a whole .safetensors file"),
        (lambda: struct.pack("<Q", 1 << 40) + b"{", "expected a whole .safetensors file"),
        (lambda: b"<html>404 Not Found</html>", "begins with b'<html>404'"),
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


@pytest.mark.parametrize("variant", ["mixer_s32", "vit_ti16", "bit_r50x1", "mixer_cifar10"])
def test_random_weights_are_seeded_and_alive(variant: str) -> None:
    first = random_classifier(variant, seed=1)
    assert first.random_weights
    assert first.source == first.variant == variant
    assert first.image_size == VARIANTS[variant].image_size
    size = first.image_size
    values = logits(first, size)
    assert 0.1 < values.std() < 3
    assert np.abs(values[0] - values[1]).max() > 0.01  # two images, two answers
    for (name, a), b, c in zip(
        first.module.named_parameters(),
        random_classifier(variant, seed=1).module.parameters(),
        random_classifier(variant, seed=2).module.parameters(),
        strict=True,
    ):
        assert torch.equal(a, b), name
        assert name.endswith(("scale", "gamma")) or not torch.equal(a, c), name


def test_random_weights_of_another_size() -> None:
    classifier = random_classifier("mixer_testing", image_size=64, num_classes=3)
    assert (classifier.image_size, classifier.num_classes) == (64, 3)
    assert logits(classifier, 64).shape == (2, 3)
    with pytest.raises(CheckpointError, match="at least 1 class"):
        random_classifier("mixer_testing", num_classes=0)
    with pytest.raises(CheckpointError, match="unknown model 'mixer'; known: mixer_s32"):
        random_classifier("mixer")
    with pytest.raises(CheckpointError, match="image size 0"):
        random_classifier("bit_testing", image_size=0)
