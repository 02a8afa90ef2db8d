"""Reading checkpoints: what a file says of itself, and each spelling of it."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from contracts.published import CheckpointError
from export.checkpoint import load_classifier
from export.formats.interpretation import Stated
from export.preprocessing import Preprocessing
from export.random_weights import random_classifier
from tests import numpy_models
from tests.export.checkpoints import BIT, GOLDEN, MIXER, VIT, Arrays, logits, read
from tests.numpy_models import ViTSizes, save


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
