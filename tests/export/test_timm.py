"""timm's files: the published models under timm's names, and what timm computes differently."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import save_file

from contracts.published import CheckpointError
from export.checkpoint import load_classifier
from export.classifier import Classifier
from export.formats.interpretation import Stated
from export.parity import torch_logits
from export.preprocessing import Preprocessing
from tests import numpy_models
from tests.numpy_models import Checkpoint, MixerSizes, ViTSizes

Images = npt.NDArray[np.float32]
MIXER = numpy_models.mixer_checkpoint(MixerSizes(2, 12, 2, 10, 9, 3, 4))
# The number of heads is not in a file of timm.
HEADS = 3
VIT = numpy_models.vit_checkpoint(ViTSizes(8, 24, 2, 3, 48, 4))
BIT = numpy_models.bit_checkpoint((1, 2), 32, 5)
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def images_for(arrays: Checkpoint) -> Images:
    size = 6 if arrays is MIXER else 32
    return np.random.default_rng(1).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)


def to_timm(arrays: Checkpoint) -> dict[str, torch.Tensor]:
    """The same arrays as timm names and lays them."""
    names = {
        r"stem/": "stem.proj.",
        r"embedding/": "patch_embed.proj.",
        r"cls": "cls_token",
        r"pre_logits/": "pre_logits.fc.",
        r"(pre_head_layer_norm|Transformer/encoder_norm|resnet/group_norm)/": "norm.",
        r"Transformer/posembed_input/pos_embedding": "pos_embed",
        r"MixerBlock_(\d+)/": r"blocks.\1.",
        r"Transformer/encoderblock_(\d+)/": r"blocks.\1.",
        r"LayerNorm_0/": "norm1.",
        r"LayerNorm_[12]/": "norm2.",
        r"token_mixing/Dense_": "mlp_tokens.fc",
        r"channel_mixing/Dense_": "mlp_channels.fc",
        r"MlpBlock_3/Dense_": "mlp.fc",
        r"fc1/": "fc2.",
        r"fc0/": "fc1.",
        r"MultiHeadDotProductAttention_1/out/": "attn.proj.",
        r"resnet/root_block/standardized_conv2d/": "stem.conv.",
        r"resnet/head/conv2d/": "head.fc.",
        r"head/": "head.",
        r"a/proj/standardized_conv2d/": "downsample.conv.",
        r"(kernel|scale|gamma)$": "weight",
        r"beta$": "bias",
    }
    state: dict[str, npt.NDArray[np.float32]] = {}
    for key, array in arrays.items():
        if re.search(r"/(query|key|value)/", key):
            continue
        name = key
        unit = re.match(
            r"resnet/block(\d)/unit(\d+)/([abc])/(group_norm|standardized_conv2d)/", key
        )
        if unit is not None:
            block, number, step, kind = unit.groups()
            part = ("norm" if kind == "group_norm" else "conv") + str("abc".index(step) + 1)
            name = f"stages.{int(block) - 1}.blocks.{int(number) - 1}.{part}.{key[unit.end() :]}"
        name = re.sub(
            r"resnet/block(\d)/unit(\d+)/",
            lambda m: f"stages.{int(m[1]) - 1}.blocks.{int(m[2]) - 1}.",
            name,
        )
        for pattern, replacement in names.items():
            name = re.sub(pattern, replacement, name)
        attention_out = name.endswith("attn.proj.weight")
        lies = array.reshape(-1, array.shape[-1]) if attention_out else array
        state[name] = (
            lies if lies.ndim % 2 else lies.transpose((3, 2, 0, 1) if lies.ndim == 4 else (1, 0))
        )
    for layer in range(sum("query/bias" in key for key in arrays)):
        scope = f"Transformer/encoderblock_{layer}/MultiHeadDotProductAttention_1"
        parts = [arrays[f"{scope}/{part}/kernel"] for part in ("query", "key", "value")]
        width = len(parts[0])
        state[f"blocks.{layer}.attn.qkv.weight"] = np.concatenate(
            [part.reshape(width, width).T for part in parts]
        )
        biases = [arrays[f"{scope}/{part}/bias"] for part in ("query", "key", "value")]
        state[f"blocks.{layer}.attn.qkv.bias"] = np.concatenate([b.reshape(-1) for b in biases])
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in state.items()}


def save_timm(folder: Path, arrays: Checkpoint, **pretrained_cfg: object) -> Path:
    """The file, with timm's configuration beside it: a ViT has to have one."""
    path = folder / "model.safetensors"
    save_file(to_timm(arrays), path, metadata={"format": "pt"})
    names = {"stem/kernel": "mixer_b16_224", "cls": "vit_tiny_patch16_224"}
    architecture = next((v for k, v in names.items() if k in arrays), "resnetv2_50x1_bit")
    model_args = {"num_heads": HEADS} if "cls" in arrays else {}
    config = {"architecture": architecture, "model_args": model_args}
    (folder / "config.json").write_text(json.dumps(config | {"pretrained_cfg": pretrained_cfg}))
    return path


def load(path: Path, images: Images, stated: Stated | None = None) -> Classifier:
    return load_classifier(path, images.shape[1], *([stated] if stated else []))


def logits(path: Path, images: Images, stated: Stated | None = None) -> Images:
    with torch.no_grad():
        found = load(path, images, stated).module(torch.from_numpy(images))
    values: Images = found.numpy()
    return values


def test_the_names_are_timms() -> None:
    """Spelt out once, since the other tests would not notice a mistake made in both directions."""
    assert {
        "stem.proj.weight",
        "blocks.1.norm1.bias",
        "blocks.0.mlp_tokens.fc1.weight",
        "blocks.0.mlp_channels.fc2.bias",
        "norm.weight",
        "head.bias",
    } < set(to_timm(MIXER))
    assert {
        "cls_token",
        "pos_embed",
        "patch_embed.proj.bias",
        "blocks.1.attn.qkv.weight",
        "blocks.0.attn.proj.bias",
        "blocks.0.norm2.weight",
        "blocks.0.mlp.fc1.weight",
        "norm.bias",
        "head.weight",
    } < set(to_timm(VIT))
    assert {
        "stem.conv.weight",
        "stages.1.blocks.1.conv2.weight",
        "stages.0.blocks.0.downsample.conv.weight",
        "stages.1.blocks.0.norm3.bias",
        "norm.weight",
        "head.fc.weight",
    } < set(to_timm(BIT))


def test_timms_models_compute_as_timm_does(tmp_path: Path) -> None:
    """GELU in its erf form; 1e-8 in the standardisation of BiT."""
    for arrays in (MIXER, VIT, BIT):
        images = images_for(arrays)
        wide = images.astype(np.float64)
        found = logits(save_timm(tmp_path, arrays), images)
        if arrays is BIT:
            expected = numpy_models.bit(BIT, wide, epsilon=1e-8)
        else:
            expected = (numpy_models.mixer if arrays is MIXER else numpy_models.vit)(
                arrays, wide, "erf"
            )
        np.testing.assert_allclose(found, expected, atol=5e-5)


def test_the_gelu_of_the_published_code_can_be_had(tmp_path: Path) -> None:
    images = images_for(MIXER)
    found = logits(save_timm(tmp_path, MIXER), images, Stated(gelu="tanh"))
    expected = numpy_models.mixer(MIXER, images.astype(np.float64), "tanh")
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_pre_logits_and_half_precision(tmp_path: Path) -> None:
    arrays = numpy_models.vit_checkpoint(ViTSizes(8, 24, 2, 3, 48, 4, representation=7))
    images = images_for(arrays)
    path = tmp_path / "model.safetensors"
    for dtype, tolerance in ((torch.float32, 2e-5), (torch.float16, 2e-2), (torch.bfloat16, 0.2)):
        save_file({name: t.to(dtype) for name, t in to_timm(arrays).items()}, path)
        expected = numpy_models.vit(arrays, images.astype(np.float64), "erf")
        found = logits(path, images, Stated(heads=HEADS))
        np.testing.assert_allclose(found, expected, atol=tolerance)


def test_another_normalisation_is_in_the_graph(tmp_path: Path) -> None:
    for arrays in (MIXER, VIT, BIT):
        shape = images_for(arrays).shape
        pixels = np.random.default_rng(2).integers(0, 256, shape, np.uint8)
        as_timm_feeds = (pixels / 255.0 - IMAGENET["mean"]) / IMAGENET["std"]
        found = torch_logits(
            load(save_timm(tmp_path, arrays, **IMAGENET), images_for(arrays)), pixels
        )
        if arrays is BIT:
            expected = numpy_models.bit(BIT, as_timm_feeds, epsilon=1e-8)
        else:
            model = numpy_models.mixer if arrays is MIXER else numpy_models.vit
            expected = model(arrays, as_timm_feeds, "erf")
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("arrays", "pretrained_cfg", "expected"),
    [
        (MIXER, {}, ("shortest", "bicubic", 6 / 6)),
        (VIT, {}, ("shortest", "bicubic", 32 / 35)),
        (BIT, {}, ("shortest", "bilinear", 0.875)),
        (VIT, {"crop_pct": 1.0, "crop_mode": "squash"}, ("squash", "bicubic", 1.0)),
        (BIT, {"input_size": [3, 448, 448], "crop_pct": 1}, ("shortest", "bilinear", 1.0)),
        (MIXER, {"interpolation": "bilinear", "crop_pct": 0.5}, ("shortest", "bilinear", 0.5)),
    ],
)
def test_images_are_cut_as_timm_does(
    tmp_path: Path,
    arrays: Checkpoint,
    pretrained_cfg: dict[str, Any],
    expected: tuple[Any, Any, float],
) -> None:
    classifier = load_classifier(save_timm(tmp_path, arrays, **pretrained_cfg))
    resize, interpolation, crop = expected
    expected_rule = Preprocessing(resize, interpolation, True, crop, "torchvision")
    assert classifier.preprocessing == expected_rule
    size = pretrained_cfg.get("input_size", [3, 224 if arrays is BIT else classifier.image_size])
    assert classifier.image_size == size[-1]


def test_the_resized_side_is_timms(tmp_path: Path) -> None:
    """timm rounds down: 224 / 0.9 is 248 there; the contract rounds to the nearest."""
    arrays = numpy_models.vit_checkpoint(ViTSizes(8, 24, 2, 3, 48, 28))
    fraction = load_classifier(save_timm(tmp_path, arrays)).preprocessing.crop_fraction
    assert round(224 / fraction) == 248


def test_the_files_own_metadata_comes_first(tmp_path: Path) -> None:
    path = save_timm(tmp_path, VIT, crop_pct=0.5)
    save_file(to_timm(VIT), path, metadata={"pretrained_cfg": json.dumps({"crop_pct": 1.0})})
    assert load_classifier(path).preprocessing.crop_fraction == 1.0


def test_the_configuration_of_another_model_is_refused(tmp_path: Path) -> None:
    path = save_timm(tmp_path, VIT)
    for architecture, message in {
        "resnet50": "does not know how timm's 'resnet50' computes",
        "mixer_b16_224": "it says 'mixer_b16_224', but the arrays are those of a vit",
    }.items():
        config = {"architecture": architecture, "pretrained_cfg": {"crop_pct": 0.5}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match=message):
            load_classifier(path)


@pytest.mark.parametrize(
    ("pretrained_cfg", "message"),
    [
        ({"crop_pct": 0}, "crop_pct: expected a number in"),
        ({"crop_pct": "1"}, "crop_pct: expected a number in"),
        ({"interpolation": "nearest"}, "interpolation: expected one of .* found 'nearest'"),
        ({"crop_mode": "border"}, "crop_mode: expected one of .* found 'border'"),
        ({"input_size": [3, 448, 224]}, "input_size: expected .3, size, size."),
        ({"mean": [0.5]}, "mean: expected three numbers"),
        ({"std": [0.5, 0.5, 0]}, "std: expected three numbers above 0"),
        ({"mean": "grey"}, "mean: expected three numbers"),
    ],
)
def test_configurations_that_cannot_be_served(
    tmp_path: Path, pretrained_cfg: dict[str, Any], message: str
) -> None:
    path = save_timm(tmp_path, BIT, **pretrained_cfg)
    with pytest.raises(CheckpointError, match=message):
        load_classifier(path)


CONFIG = '{"architecture": "vit_tiny_patch16_224", "model_args": {"num_heads": 3}'


@pytest.mark.parametrize("text", ["{", "[1]", CONFIG, CONFIG + ', "pretrained_cfg": 3}'])
def test_a_broken_configuration(tmp_path: Path, text: str) -> None:
    path = save_timm(tmp_path, VIT)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match="expected a JSON object"):
        load_classifier(path)


def test_models_that_only_look_alike_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    state = to_timm(VIT)
    heads = Stated(heads=HEADS)
    save_file(state | {"blocks.0.ls1.gamma": torch.zeros(24)}, path)
    with pytest.raises(CheckpointError, match=r"do not tell how they are computed with: put timm"):
        load_classifier(path, stated=heads)
    save_file(state | {"blocks.0.ls3.gamma": torch.zeros(24)}, path)
    with pytest.raises(CheckpointError, match=r"blocks.0.ls3.gamma: expected no such key"):
        load_classifier(path, stated=heads)
    save_file({k: v for k, v in state.items() if k != "norm.bias"}, path)
    with pytest.raises(CheckpointError, match=r"encoder_norm/bias: .* found no such key .the file"):
        load_classifier(path, stated=heads)
    save_file({k: v for k, v in state.items() if not k.startswith("blocks.0")}, path)
    with pytest.raises(CheckpointError, match="do not tell how they are computed"):
        load_classifier(path, stated=heads)
