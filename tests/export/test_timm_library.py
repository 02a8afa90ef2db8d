"""timm itself against what is published from its folders: right to rounding, or refused by name."""

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from contracts.published import CheckpointError, check_shapes
from export.checkpoint import load_classifier
from export.classifier import empty_module
from export.formats.folder import Beside
from export.formats.interpretation import Stated, interpret
from export.formats.timm_architectures import ARCHITECTURES, TimmSettings
from export.models.parameters import published_layers
from tests.export import libraries
from tests.photos import photo

TOLERANCE = {"vit": 2e-5, "mixer": 2e-5, "bit": 5e-5}
# What this program knows names like these of.
PATTERNS = ("vit_*", "mixer_*", "resnetv2_*bit*", "deit*")
# Parts of the names of plain ViTs whose arrays are not those of the first ones.
LATER = {"dinov2", "36x1", "plus", "miil"}


def create(name: str, **arguments: Any) -> libraries.Model:
    """A model of timm with random weights and 7 classes."""
    return libraries.randomized(libraries.timm().create_model(name, num_classes=7, **arguments))


def small(name: str) -> libraries.Model:
    """An architecture with two narrow blocks, or one of each stage, and few patches."""
    settings = ARCHITECTURES[name]
    models = libraries.timm().models
    if settings.family == "vit":
        patch = int(re.findall(r"patch(\d+)", name)[0])
        width = 16 * settings.heads
        return create(name, depth=2, embed_dim=width, img_size=4 * patch)
    # These two do not take arguments for what their names say.
    if settings.family == "mixer":
        sizes = {"patch_size": int(re.findall(r"_[sbl](\d+)_", name)[0]), "num_blocks": 2}
        made = models.mlp_mixer._create_mixer(name, embed_dim=64, num_classes=7, **sizes)
    else:
        factor = int(re.findall(r"x(\d)_", name)[0])
        made = models.resnetv2._create_resnetv2_bit(
            name, layers=[1, 1, 1, 1], width_factor=factor, num_classes=7
        )
    return libraries.randomized(made)


def inputs(model: libraries.Model, batch: int = 2) -> torch.Tensor:
    embedding = getattr(model, "patch_embed", None) or model.stem
    size = embedding.img_size[0] if hasattr(embedding, "img_size") else 64  # a BiT takes any
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def worst(model: libraries.Model, path: Path, stated: Stated | None = None) -> float:
    """The largest difference of a logit between the library and the published module."""
    images = inputs(model)
    found = load_classifier(path, images.shape[-1], *([stated] if stated else []))
    ours = libraries.logits(found.module, images.permute(0, 2, 3, 1))
    theirs = libraries.logits(model, images)
    assert theirs.std() > 0.1
    return float((ours - theirs).abs().max())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_known_architecture_computes_as_in_timm(name: str, tmp_path: Path) -> None:
    model = small(name)
    folder = libraries.save_timm(model, tmp_path)
    assert worst(model, folder) <= TOLERANCE[ARCHITECTURES[name].family]


@pytest.mark.parametrize(
    "name",
    ["vit_tiny_patch16_224", "vit_base_patch16_gap_224", "mixer_s16_224", "resnetv2_50x1_bit"],
)
@pytest.mark.timeout(300)  # a few seconds, but for a busy machine
def test_whole_models_compute_as_in_timm(name: str, tmp_path: Path) -> None:
    model = create(name)
    folder = libraries.save_timm(model, tmp_path)
    # Rounding adds up over many blocks.
    assert worst(model, folder) <= 5 * TOLERANCE[ARCHITECTURES[name].family]


def test_more_than_forty_names_are_known() -> None:
    assert len(ARCHITECTURES) >= 90
    known = {name for pattern in PATTERNS for name in libraries.timm().list_models(pattern)}
    assert set(ARCHITECTURES) <= known


class OnMeta:
    """The names and shapes of a model's arrays, as of an open file; nothing can be read."""

    def __init__(self, model: libraries.Model) -> None:
        self.metadata: dict[str, str] = {}
        self.shapes = {name: tuple(array.shape) for name, array in model.state_dict().items()}

    def read(self, key: str) -> Any:
        """Never."""
        raise NotImplementedError(key)


def refusal(arrays: OnMeta, config: dict[str, Any] | None, heads: int | None) -> str | None:
    """Why a file would not be published, by names and shapes alone; None where it would."""
    try:
        found = interpret(arrays, Beside(config), None, Stated(heads=heads))  # type: ignore[arg-type] # a fake
        module = empty_module(found.network, found.network.image_size)
        check_shapes(
            found.arrays.shapes, {key: shape for key, _, _, shape in published_layers(module)}
        )
    except CheckpointError as error:
        return str(error)
    return None


@pytest.mark.timeout(600)  # a minute, but for a busy machine
def test_no_other_name_of_timm_is_accepted() -> None:
    """With its configuration by name, without by its arrays; or it computes as is known."""
    timm = libraries.timm()
    accepted, named = set(), 0
    for name in sorted({each for pattern in PATTERNS for each in timm.list_models(pattern)}):
        with torch.device("meta"):
            model = timm.create_model(name, num_classes=7)
        arrays = OnMeta(model)
        config = {"architecture": f"{name}.some_tag", "num_classes": 7}
        reason = refusal(arrays, config, None)
        if name in ARCHITECTURES:
            assert reason is None, name
        else:
            assert reason is not None, name
            # Another kind of network has no arrays that this program would take for a ViT's.
            named += repr(name) in reason
        heads = ARCHITECTURES[name].heads or None if name in ARCHITECTURES else 12
        if refusal(arrays, None, heads) is None:
            accepted.add(name)
    assert named > 100
    plain = {
        name
        for name, settings in ARCHITECTURES.items()
        if settings == TimmSettings("vit", settings.heads) and not LATER & set(name.split("_"))
    }
    others = {name for name, row in ARCHITECTURES.items() if row.family != "vit"}
    assert accepted == plain | others


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("vit_tiny_patch16_224", {"num_heads": 6}),
        ("vit_tiny_patch16_224", {"act_layer": "gelu_tanh"}),
        ("vit_tiny_patch16_224", {"act_layer": "quick_gelu"}),
        ("vit_tiny_patch16_224", {"global_pool": "avg"}),
        ("vit_tiny_patch16_224", {"global_pool": "avg", "fc_norm": False}),
        ("vit_tiny_patch16_224", {"fc_norm": True}),
        ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg"}),
        ("vit_tiny_patch16_224", {"no_embed_class": True, "reg_tokens": 4}),
        ("vit_tiny_patch16_224", {"reg_tokens": 2}),
        ("vit_tiny_patch16_224", {"pre_norm": True, "qkv_bias": False}),
        ("vit_tiny_patch16_224", {"init_values": 0.1, "mlp_ratio": 3.0}),
        ("vit_tiny_patch16_224", {"dynamic_img_size": True}),
        ("vit_base_patch16_clip_224", {"embed_dim": 192, "norm_layer": "layernorm"}),
        ("mixer_s32_224", {"mlp_ratio": (0.25, 2.0), "img_size": 128}),
    ],
)
def test_arguments_of_a_model_are_read(
    name: str, arguments: dict[str, Any], tmp_path: Path
) -> None:
    small = {"depth": 2, "img_size": 64} if name.startswith("vit") else {}
    model = create(name, **small, **arguments)
    folder = libraries.save_timm(model, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    # The library notes them; else the test would show nothing.
    assert arguments.keys() <= config["model_args"].keys()
    assert worst(model, folder) <= 2e-5


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("vit_tiny_patch16_224", {"block_fn": "x"}, "block_fn is 'x'; this program does not know"),
        ("vit_tiny_patch16_224", {"act_layer": "relu"}, "act_layer is 'relu'; this program"),
        ("vit_tiny_patch16_224", {"norm_layer": "rmsnorm"}, "norm_layer is 'rmsnorm'"),
        ("vit_tiny_patch16_224", {"global_pool": "map"}, "global_pool is 'map'; expected 'avg'"),
        ("vit_tiny_patch16_224", {"final_norm": False}, "final_norm is False; expected True"),
        ("vit_tiny_patch16_224", {"pool_include_prefix": True}, "pool_include_prefix is True"),
        ("vit_tiny_patch16_224", {"in_chans": 1}, "in_chans is 1; expected 3"),
        ("vit_tiny_patch16_224", {"num_heads": "3"}, "num_heads is '3'"),
        ("vit_tiny_patch16_224", {"num_heads": 5}, "a width that 5 heads can share, found 192"),
        ("mixer_s32_224", {"num_heads": 3}, "num_heads is 3; this program does not know"),
        ("mixer_s32_224", {"global_pool": "token"}, "global_pool is 'token'"),
    ],
)
def test_arguments_that_are_not_known_are_refused(
    name: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    model = create(name, img_size=64, **({"depth": 1} if name.startswith("vit") else {}))
    folder = libraries.save_timm(model, tmp_path)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["model_args"] = config["model_args"] | changes
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=re.escape(message)):
        load_classifier(folder)


def test_an_old_configuration_notes_the_pooling_alone(tmp_path: Path) -> None:
    """It lacks `model_args`; its `global_pool` is what the saved model had."""
    folder = libraries.save_timm(create("vit_tiny_patch16_224", depth=1, img_size=64), tmp_path)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    del config["model_args"]
    path.write_text(json.dumps(config))
    assert load_classifier(folder).variant is None
    path.write_text(json.dumps(config | {"global_pool": "avg"}))
    with pytest.raises(CheckpointError, match="global_pool is 'avg'; model_args says nothing"):
        load_classifier(folder)


def test_a_bare_file_of_a_vit_asks_for_its_heads(tmp_path: Path) -> None:
    model = create("vit_tiny_patch16_224", depth=2, img_size=64)
    path = libraries.save_timm(model, tmp_path) / "model.safetensors"
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"number of a ViT's heads .* say --heads N"):
        load_classifier(path)
    assert worst(model, path, Stated(heads=3)) <= 2e-5
    # Another number is another network: this is what a guess would have cost.
    assert worst(model, path, Stated(heads=4)) > 0.1


def test_heads_that_contradict_the_configuration_are_refused(tmp_path: Path) -> None:
    folder = libraries.save_timm(create("vit_tiny_patch16_224", depth=1, img_size=64), tmp_path)
    with pytest.raises(CheckpointError, match=r"--heads 6: config\.json says 3"):
        load_classifier(folder, stated=Stated(heads=6))
    load_classifier(folder, stated=Stated(heads=3))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit3_small_patch16_224"])
def test_at_another_size_positions_are_resized_as_timm_does(name: str, tmp_path: Path) -> None:
    model = create(name, depth=2, img_size=64)
    folder = libraries.save_timm(model, tmp_path)
    model.set_input_size(img_size=(96, 96))
    assert inputs(model).shape[-1] == 96
    assert worst(model, folder) <= 2e-5


def test_images_are_prepared_as_timm_does(tmp_path: Path) -> None:
    """Its own transform, with torchvision's and Pillow's code, on images of odd shapes."""
    timm = libraries.timm()
    for name, about in {
        "vit_tiny_patch16_224": {},
        "deit_tiny_patch16_224": {},
        "mixer_s32_224": {"crop_pct": 0.95, "interpolation": "bilinear"},
        "vit_base_patch16_clip_224": {"crop_mode": "squash", "crop_pct": 1.0},
    }.items():
        small = {"depth": 1, "embed_dim": 192, "img_size": 96} if name[0] in "vd" else {}
        model = create(name, **small) if small else create(name, img_size=96)
        size = {"input_size": (3, 96, 96)}
        folder = libraries.save_timm(model, tmp_path / name, pretrained_cfg=about | size)
        config = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
        transform = timm.data.create_transform(**timm.data.resolve_data_config(config))
        classifier = load_classifier(folder)
        rule = classifier.preprocessing.at(classifier.image_size)
        mean, std = (np.array(each, np.float32) for each in classifier.normalization.constants())
        for seed, (width, height) in enumerate([(250, 167), (131, 300), (96, 97), (640, 479)]):
            image = Image.open(io.BytesIO(photo(seed, width, height))).convert("RGB")
            theirs = transform(image).permute(1, 2, 0).numpy() * std + mean
            levels = np.abs(rule.apply(image) - theirs)
            assert levels.max() <= 2, (name, width, height)
            assert levels.mean() <= 0.25, (name, width, height)


@pytest.mark.parametrize(
    ("names", "descriptions", "expected"),
    [
        (["a", "b", "c"], None, ["a", "b", "c"]),
        ({"0": "n1", "1": "n2", "2": "n3"}, None, ["n1", "n2", "n3"]),
        (
            ["n1", "n2", "n3"],
            {"n1": "tench", "n3": "goldfish, carp"},
            ["tench", "n2", "goldfish, carp"],
        ),
        (None, None, None),
    ],
)
def test_labels_come_along(
    names: object,
    descriptions: object,
    expected: list[str] | None,
    tmp_path: Path,
) -> None:
    made = libraries.timm().create_model("vit_tiny_patch16_224", num_classes=3, depth=1)
    about = {"label_names": names, "label_descriptions": descriptions}
    folder = libraries.save_timm(libraries.randomized(made), tmp_path, **about)
    assert load_classifier(folder).labels == expected
    if names is not None:
        path = folder / "config.json"
        path.write_text(path.read_text().replace('"label_names": ', '"label_names": ["a"], "x": '))
        with pytest.raises(CheckpointError, match="label_names: expected 3 names, found 1"):
            load_classifier(folder)
