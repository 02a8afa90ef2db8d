"""transformers itself against what is published from its folders: right to rounding, or refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from contracts.published import CheckpointError
from export.checkpoint import load_classifier
from export.formats.interpretation import Stated
from export.preprocessing import Normalization
from tests.export import libraries

VIT = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 6, "image_size": 32}
VIT |= {"intermediate_size": 96, "patch_size": 8, "num_labels": 5}
BIT = {"depths": [1, 2], "hidden_sizes": [128, 256], "embedding_size": 32, "num_labels": 5}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "a small ViT": ("vit", VIT),
    "ViT with tanh GELU": ("vit", VIT | {"hidden_act": "gelu_new"}),
    "ViT with PyTorch's tanh GELU": ("vit", VIT | {"hidden_act": "gelu_pytorch_tanh"}),
    "ViT with CLIP's GELU": ("vit", VIT | {"hidden_act": "quick_gelu"}),
    "ViT with a large epsilon": ("vit", VIT | {"layer_norm_eps": 1e-3}),
    "ViT without biases": ("vit", VIT | {"qkv_bias": False}),
    "ViT of 3 heads": ("vit", VIT | {"num_attention_heads": 3}),
    "ViT-Ti/16": (
        "vit",
        {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768, "num_labels": 5},
    ),
    "a small BiT": ("bit", BIT),
    "a wider BiT": ("bit", BIT | {"embedding_size": 64, "hidden_sizes": [256, 512]}),
    "BiT-50": ("bit", {"num_labels": 5}),
}


def create(name: str, **changes: Any) -> libraries.Model:
    library = libraries.transformers()
    kind, config = MODELS[name]
    if kind == "vit":
        made = library.ViTForImageClassification(library.ViTConfig(**(config | changes)))
    else:
        made = library.BitForImageClassification(library.BitConfig(**(config | changes)))
    return libraries.randomized(made)


def processor(model: libraries.Model, **changes: Any) -> Any:
    library = libraries.transformers()
    if model.config.model_type == "vit":
        side = model.config.image_size
        return library.ViTImageProcessor(size={"height": side, "width": side}, **changes)
    crop = {"crop_size": {"height": 64, "width": 64}, "size": {"shortest_edge": 73}}
    means = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    return library.BitImageProcessor(**(crop | means | changes))


def save(model: libraries.Model, folder: Path, **changes: Any) -> Path:
    model.save_pretrained(folder)
    processor(model, **changes).save_pretrained(folder)
    return folder


def edit(path: Path, **changes: Any) -> None:
    config = json.loads(path.read_text()) | changes
    kept = {key: value for key, value in config.items() if value != "absent"}
    path.write_text(json.dumps(kept))


def worst(model: libraries.Model, folder: Path, stated: Stated | None = None) -> float:
    classifier = load_classifier(folder, None, *([stated] if stated else []))
    size = classifier.image_size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    theirs = libraries.logits(model, images)
    assert theirs.std() > 0.1
    ours = libraries.logits(classifier.module, images.permute(0, 2, 3, 1))
    return float((ours - theirs).abs().max())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.timeout(300)
def test_models_compute_as_in_transformers(name: str, tmp_path: Path) -> None:
    model = create(name)
    tolerance = 5e-5 if "BiT" in name else 2e-5
    assert worst(model, save(model, tmp_path)) <= tolerance


@pytest.mark.parametrize("name", ["a small ViT", "a small BiT"])
def test_a_state_dict_as_it_is_in_memory_is_read_too(name: str, tmp_path: Path) -> None:
    """In memory today's names differ from those that files keep."""
    model = create(name)
    folder = save(model, tmp_path)
    before = set(load_file(folder / "model.safetensors"))
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    assert "BiT" in name or set(state) != before
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    assert worst(model, folder) <= 5e-5


def test_what_a_classifier_does_not_use_is_ignored(tmp_path: Path) -> None:
    model = create("a small ViT")
    folder = save(model, tmp_path)
    path = folder / "model.safetensors"
    pooler = {
        "vit.pooler.dense.weight": torch.ones(48, 48),
        "vit.pooler.dense.bias": torch.ones(48),
    }
    save_file(load_file(path) | pooler, path)
    assert worst(model, folder) <= 2e-5
    save_file(load_file(path) | {"vit.extra": torch.ones(3)}, path)
    with pytest.raises(CheckpointError, match=r"vit\.extra: expected no such key"):
        load_classifier(folder)


def refused(kind: str, file: str, changes: dict[str, Any], message: str, out: Path) -> None:
    folder = save(create(kind), out)
    edit(folder / file, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_classifier(folder)


def test_heads_are_read_or_asked_for(tmp_path: Path) -> None:
    model = create("a small ViT")
    folder = save(model, tmp_path)
    edit(folder / "config.json", num_attention_heads="absent")
    with pytest.raises(CheckpointError, match="say --heads N"):
        load_classifier(folder)
    assert worst(model, folder, Stated(heads=6)) <= 2e-5
    assert worst(model, folder, Stated(heads=3)) > 0.1  # what a guess would have cost


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("a small ViT", {"model_type": "deit"}, "model_type is 'deit', expected 'vit' or 'bit'"),
        ("a small ViT", {"architectures": ["ViTModel"]}, "other classes have no classifier"),
        ("a small ViT", {"hidden_act": "relu"}, "hidden_act is 'relu', expected one of"),
        ("a small ViT", {"num_channels": 1}, "num_channels is 1, expected 3"),
        ("a small ViT", {"problem_type": "regression"}, "problem_type is 'regression'"),
        ("a small ViT", {"layer_norm_eps": "x"}, "layer_norm_eps is 'x'"),
        ("a small ViT", {"num_attention_heads": 5}, "a width that 5 heads can share, found 48"),
        ("a small BiT", {"layer_type": "bottleneck"}, "layer_type is 'bottleneck', expected 'pre"),
        ("a small BiT", {"global_padding": "SAME"}, "global_padding is 'SAME', expected None"),
        ("a small BiT", {"embedding_dynamic_padding": True}, "embedding_dynamic_padding is True"),
        ("a small BiT", {"num_groups": 16}, "num_groups is 16, expected 32"),
        ("a small BiT", {"output_stride": 8}, "output_stride is 8, expected 32"),
        ("a small BiT", {"hidden_act": "gelu"}, "hidden_act is 'gelu', expected 'relu'"),
    ],
)
def test_what_computes_otherwise_is_refused(
    kind: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    refused(kind, "config.json", changes, message, tmp_path)


def test_every_other_setting_of_a_bit_would_compute_something_else(tmp_path: Path) -> None:
    """The refusals above are needed: with the same arrays the library gives other logits."""
    model = create("a small BiT")
    state = model.state_dict()
    folder = save(model, tmp_path)
    for changes in ({"global_padding": "SAME"}, {"embedding_dynamic_padding": True}):
        other = create("a small BiT", **changes)
        other.load_state_dict(state)
        assert worst(other, folder) > 1e-3, changes


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("a small ViT", {"image_processor_type": "ConvNextImageProcessor"}, "expected ViTImagePro"),
        ("a small ViT", {"do_resize": False}, "do_resize is False, expected True"),
        ("a small ViT", {"do_center_crop": True}, "do_center_crop is True, expected False"),
        ("a small ViT", {"do_rescale": False}, "do_rescale is False, expected True"),
        ("a small ViT", {"rescale_factor": 1.0}, "rescale_factor is 1.0, expected 1 / 255"),
        ("a small ViT", {"resample": 0}, "resample is 0, expected 2 .bilinear. or 3"),
        ("a small ViT", {"size": {"height": 32, "width": 64}}, "size is .*, expected an object of"),
        (
            "a small ViT",
            {"size": {"shortest_edge": 32}},
            "size is .*, expected an object",
        ),
        ("a small ViT", {"size": 64}, "made 64 pixels wide, but .* positions for 32"),
        ("a small ViT", {"image_mean": [0.5]}, "image_mean: expected three numbers"),
        ("a small ViT", {"image_std": "absent"}, "image_std: expected three numbers above 0"),
        ("a small BiT", {"size": {"longest_edge": 64}}, "expected an object of shortest_edge"),
        ("a small BiT", {"do_center_crop": False}, "do_center_crop is False, expected True"),
        ("a small BiT", {"crop_size": 80}, "crop_size is 80, expected at most 73, the size"),
        ("a small BiT", {"do_pad": True}, "do_pad is True, expected False"),
    ],
)
def test_images_that_cannot_be_prepared_so_are_refused(
    kind: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    refused(kind, "preprocessor_config.json", changes, message, tmp_path)


OLD_VIT = {"do_normalize": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("a small ViT", {}),
        ("a small ViT", {"resample": 3, "image_mean": [0.485, 0.456, 0.406]}),
        ("a small ViT", {"do_normalize": False}),
        ("a small BiT", {}),
        ("a small BiT", {"resample": 2, "size": {"shortest_edge": 64}}),
    ],
)
def test_images_are_prepared_as_transformers_does(
    kind: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    model = create(kind)
    folder = save(model, tmp_path, **changes)
    classifier = load_classifier(folder)
    rule = classifier.preprocessing.at(classifier.image_size)
    mean, std = (np.array(each, np.float32) for each in classifier.normalization.constants())
    random = np.random.default_rng(0)
    for width, height in [(250, 167), (131, 300), (96, 97), (97, 96), (640, 479), (75, 211)]:
        coarse = random.integers(0, 256, (9, 9, 3), np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        prepared = processor(model, **changes)(image, return_tensors="np")["pixel_values"][0]
        levels = np.abs(rule.apply(image) - (prepared.transpose(1, 2, 0) * std + mean))
        assert levels.max() <= 2, (width, height)
        assert levels.mean() <= 0.25, (width, height)


def test_the_configuration_of_googles_first_files_is_read(tmp_path: Path) -> None:
    folder = save(create("a small ViT"), tmp_path)
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(OLD_VIT | {"size": 32}))
    rule = load_classifier(folder).preprocessing
    assert (rule.resize, rule.interpolation, rule.crop_fraction) == ("squash", "bilinear", 1.0)


def test_without_a_preprocessor_it_is_asked_for(tmp_path: Path) -> None:
    folder = save(create("a small ViT"), tmp_path)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json .* --mean R G B --std"):
        load_classifier(folder)
    normalization = Normalization((0.4, 0.5, 0.6), (0.2, 0.2, 0.2))
    found = load_classifier(folder, stated=Stated(normalization=normalization))
    assert found.normalization == normalization


def test_without_a_configuration_nothing_is_guessed(tmp_path: Path) -> None:
    folder = save(create("a small ViT"), tmp_path)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"transformers' names: expected its config\.json"):
        load_classifier(folder, stated=Stated(heads=6))


def test_labels_and_the_kind_of_problem_come_along(tmp_path: Path) -> None:
    names = dict(enumerate(["cat", "dog", "日本", "a, b", "e"]))
    model = create("a small ViT", id2label=names, problem_type="multi_label_classification")
    found = load_classifier(save(model, tmp_path))
    assert found.labels == list(names.values())
    assert found.activation == "sigmoid"
    plain = load_classifier(save(create("a small ViT"), tmp_path / "plain"))
    assert (plain.labels, plain.activation) == (None, "softmax")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "expected a folder with model.safetensors or an .npz in it, found none"),
        (["pytorch_model.bin"], "found pickled weights alone, which are never loaded"),
        (["a.safetensors", "b.safetensors"], "found a.safetensors, b.safetensors; name one"),
        (
            ["model.safetensors.index.json", "model-1.safetensors", "model-2.safetensors"],
            "in 2 parts",
        ),
    ],
)
def test_folders_that_hold_no_one_file(files: list[str], message: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_text("")
    with pytest.raises(CheckpointError, match=message):
        load_classifier(tmp_path)
