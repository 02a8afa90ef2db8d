"""`--pretrained` publishes weights by their name, against a stand-in: tests have no network."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from contracts.imagenet import names
from contracts.variants import VARIANTS
from export.checkpoint import load_classifier
from export.graph import open_graph
from export.options import Options
from export.parity import torch_logits
from export.pretrained.catalogue import catalogue
from tests.export import libraries
from tests.export.pretrained.machine import FETCH, GOOGLE, HUB, Here, Machine
from tests.export.weights_server import COMMIT, Weights


def test_a_name_of_the_hub_is_published_and_kept(
    machine: Machine, weights: Weights, folder: Path
) -> None:
    """By the mirror that HF_ENDPOINT names; then without it, from what was kept."""
    command = ("-m", "export", "--pretrained", HUB, "--repository", str(machine.repository))
    status, out, err = machine.run(*command)
    assert status == 0, err
    assert f"published {machine.repository / HUB}: vit, 64×64 pixels, 1000 classes" in out
    assert (machine.repository / HUB / "labels.txt").read_text().splitlines() == names()
    assert f"timm/{HUB}@{COMMIT}" in machine.config(HUB)
    assert weights.asked("model.safetensors") == [None]
    assert not [path for _, path, _ in weights.requests if path.endswith(".bin")]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    graph = open_graph(machine.repository / HUB / "1/model.onnx")
    expected = torch_logits(load_classifier(folder), pixels)
    np.testing.assert_allclose(
        graph.run(["logits"], {"image": pixels})[0], expected, rtol=0, atol=2e-5
    )
    count = len(weights.requests)
    path = machine.fetch(FETCH, HUB, HF_HUB_OFFLINE="1")
    assert len(weights.requests) == count
    kept = (path / "model.safetensors").read_bytes()
    assert kept == (folder / "model.safetensors").read_bytes()


def test_a_file_of_googles_is_published_by_its_own_rule(
    machine: Machine, here: Here, weights: Weights
) -> None:
    status, out, err = here("--pretrained", f"gs://{GOOGLE}", "--image-size", "32")
    assert status == 0, err
    assert "published" in out
    config = machine.config("Mixer-B_32")
    assert f"gs://{GOOGLE}" in config
    for key, value in {"resize": "shortest", "crop_fraction": "0.875", "antialias": "true"}.items():
        assert f'key: "{key}" value {{ string_value: "{value}" }}' in " ".join(config.split())
    assert weights.asked(GOOGLE) == [None]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vit_tiny_patch16", "is vit_tiny_patch16_"),
        ("gs://bucket", "expected gs://BUCKET/OBJECT.npz"),
        ("gs://bucket/../../x.npz", "expected gs://BUCKET/OBJECT.npz"),
        ("a/b/c", "expected ORGANISATION/NAME"),
    ],
)
def test_a_wrong_name_is_refused(here: Here, name: str, said: str) -> None:
    status, _, err = here("--pretrained", name, "--name", "x")
    assert status == 2
    assert said in err.splitlines()[-1]


def test_the_list_has_what_is_known_of_each(here: Here) -> None:
    status, out, _ = here("--list-pretrained")
    assert status == 0
    name = "mixer_b16_224.miil_in21k_ft_in1k"
    (line,) = (line for line in out.splitlines() if line.endswith(name))
    assert line.split()[:5] == ["1000", "224", "240", "Apache-2.0", "82.31"]
    assert "short side 256, centre 224, bilinear" in line
    assert len(out.splitlines()) == 1 + len(catalogue())


def test_the_catalogue_agrees_with_timm() -> None:
    """timm's own table is the oracle for what is on the hub; Google's files are in no package."""
    timm = libraries.timm()
    checked = 0
    for name, row in catalogue().items():
        assert row.variant in VARIANTS
        if row.at == "google":
            assert name.endswith(".npz")
            continue
        cfg = timm.models.get_pretrained_cfg(name, allow_unregistered=False)
        assert cfg.hf_hub_id == f"timm/{name}"
        assert cfg.license == "apache-2.0"
        assert (cfg.num_classes, cfg.input_size) == (row.classes, (3, *[row.image_size] * 2)), name
        rule = row.preprocessing
        assert (cfg.crop_pct, cfg.interpolation) == (rule.crop_fraction, rule.interpolation), name
        checked += 1
    assert checked > 40


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (HUB, HUB),
        ("google/vit-base-patch16-224@main", "vit-base-patch16-224"),
        ("gs://bit_models/distill/R50x1_224.npz", "R50x1_224"),
    ],
)
def test_a_model_is_called_by_the_last_part_of_its_name(name: str, expected: str) -> None:
    assert Options(pretrained=name).model_name == expected
    assert dataclasses.replace(Options(pretrained=name), name="mine").model_name == "mine"
