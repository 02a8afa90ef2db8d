"""The exported architectures: the published sizes, and agreement with a second implementation."""

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from contracts import variants
from contracts.published import CheckpointError, Contents, published_shapes
from contracts.variants import VARIANTS
from export.checkpoint import load_classifier
from export.models import build, network_of
from export.models.parameters import published_layers
from tests import numpy_models
from tests.numpy_models import Array, Checkpoint, MixerSizes, ViTSizes, save
from tests.parameter_counts import OURS, PUBLISHED

PARAMETERS = PUBLISHED | OURS


def test_no_variant_is_missing() -> None:
    assert set(VARIANTS) == set(PARAMETERS)
    assert all(name.startswith(f"{row.sizes.family}_") for name, row in VARIANTS.items())


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count(name: str) -> None:
    with torch.device("meta"):
        module = build(network_of(name), VARIANTS[name].image_size)
    assert sum(p.numel() for p in module.parameters()) == PARAMETERS[name]


def test_parameter_count_without_class_token_and_with_pre_logits() -> None:
    network = network_of("vit_b16")
    assert isinstance(network.sizes, variants.ViTSizes)
    others = {
        PARAMETERS["vit_b16"] - 2 * 768: dataclasses.replace(network.sizes, class_token=False),
        PARAMETERS["vit_b16"] + 768 * 769: dataclasses.replace(
            network.sizes, representation_size=768
        ),
    }
    for parameters, sizes in others.items():
        with torch.device("meta"):
            module = build(dataclasses.replace(network, sizes=sizes), 224)
        assert sum(p.numel() for p in module.parameters()) == parameters


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_module_has_the_published_names_and_shapes(name: str) -> None:
    row = VARIANTS[name]
    with torch.device("meta"):
        module = build(network_of(name), row.image_size)
    published = published_shapes(Contents(row.sizes, row.image_size, row.num_classes))
    assert {key: shape for key, _, _, shape in published_layers(module)} == published


def run(
    path: Path, arrays: Checkpoint, size: int, batch: int = 3
) -> tuple[Array, npt.NDArray[np.float32]]:
    """Normalised random images, and their logits from the checkpoint."""
    images = np.random.default_rng(size).uniform(-1, 1, (batch, size, size, 3)).astype(np.float32)
    classifier = load_classifier(save(path, arrays), image_size=size)
    with torch.no_grad():
        return images.astype(np.float64), classifier.module(torch.from_numpy(images)).numpy()


@pytest.mark.parametrize(
    ("sizes", "tiles"),
    [
        (MixerSizes(1, 8, 1, 3, 5, 4, 2), 1),
        (MixerSizes(2, 24, 3, 40, 7, 3, 11), 1),
        (MixerSizes(7, 12, 2, 5, 30, 2, 1), 1),
        (MixerSizes(4, 16, 2, 6, 20, 1, 5), 1),
        (MixerSizes(2, 12, 2, 10, 9, 3, 4), 2),
        (MixerSizes(3, 8, 1, 4, 16, 2, 3), 3),
    ],
)
def test_mixer_of_any_size(tmp_path: Path, sizes: MixerSizes, tiles: int) -> None:
    arrays = numpy_models.mixer_checkpoint(sizes)
    images, logits = run(tmp_path / "m.npz", arrays, sizes.patch * sizes.grid * tiles)
    np.testing.assert_allclose(logits, numpy_models.mixer(arrays, images), atol=2e-5)


@pytest.mark.parametrize(
    "sizes",
    [
        ViTSizes(1, 8, 1, 1, 5, 3),
        ViTSizes(5, 30, 3, 5, 12, 2, representation=7),
        ViTSizes(2, 12, 2, 12, 40, 4, token=False),
        ViTSizes(3, 16, 1, 2, 16, 1, token=False, representation=16),
        ViTSizes(4, 18, 2, 3, 24, 1, classes=1),
    ],
)
def test_vit_of_any_size(tmp_path: Path, sizes: ViTSizes) -> None:
    arrays = numpy_models.vit_checkpoint(sizes)
    images, logits = run(tmp_path / "v.npz", arrays, sizes.patch * sizes.grid)
    np.testing.assert_allclose(logits, numpy_models.vit(arrays, images), atol=2e-5)


@pytest.mark.parametrize(
    ("units", "root", "size"),
    [((1,), 32, 8), ((2, 1), 32, 33), ((1, 1, 2), 32, 50), ((1,), 96, 17)],
)
def test_bit_of_any_size(tmp_path: Path, units: tuple[int, ...], root: int, size: int) -> None:
    arrays = numpy_models.bit_checkpoint(units, root, 5)
    images, logits = run(tmp_path / "b.npz", arrays, size, batch=2)
    np.testing.assert_allclose(logits, numpy_models.bit(arrays, images), atol=5e-5)


def test_logits_do_not_depend_on_batchmates(tmp_path: Path) -> None:
    sizes = MixerSizes(2, 12, 2, 10, 9, 3, 4)
    path = save(tmp_path / "m.npz", numpy_models.mixer_checkpoint(sizes))
    module = load_classifier(path, image_size=12).module
    images = torch.rand(5, 12, 12, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        together = module(images)
        alone = torch.cat([module(images[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_a_finer_mixer_is_the_mean_of_its_tiles(tmp_path: Path) -> None:
    sizes = MixerSizes(2, 12, 2, 10, 9, 3, 4)
    path = save(tmp_path / "m.npz", numpy_models.mixer_checkpoint(sizes))
    images = torch.rand(2, 12, 12, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    tiles = [images[:, y : y + 6, x : x + 6] for y in (0, 6) for x in (0, 6)]
    with torch.no_grad():
        fine = load_classifier(path, image_size=12).module(images)
        coarse = load_classifier(path).module
        mean = torch.stack([coarse(tile) for tile in tiles]).mean(0)
    torch.testing.assert_close(fine, mean, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("mixer_b16", 250, "multiple of 224, for example 224 or 448"),
        ("mixer_b16", 112, "multiple of 224"),
        ("vit_b16", 250, "multiple of 16, as 256"),
        ("vit_b16", 3, "multiple of 16, as 16"),
        ("bit_r50x1", 7, "at least 8 pixels"),
    ],
)
def test_an_image_size_that_does_not_fit(name: str, size: int, message: str) -> None:
    with torch.device("meta"), pytest.raises(CheckpointError, match=message):
        build(network_of(name), size)
