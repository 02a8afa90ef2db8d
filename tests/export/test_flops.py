"""What the variants cost: counted on the modules, checked against sums done by hand."""

import pytest
import torch

from contracts.variants import VARIANTS
from export.flops import count_flops, variant_costs
from export.models import build, network_of
from tests import exported


def test_every_variant_is_counted_once() -> None:
    costs = {cost.variant: cost for cost in variant_costs()}
    assert list(costs) == list(VARIANTS)
    assert costs["mixer_b16"].parameters == 59_880_472
    assert all(cost.flops > 0 for cost in costs.values())
    # As published, in multiply-adds: ViT-B/16 17.6 G (with attention), ResNet-50 4.1 G.
    assert costs["vit_b16"].flops / 2e9 == pytest.approx(17.56, rel=0.01)
    assert costs["bit_r50x1"].flops / 2e9 == pytest.approx(4.09, rel=0.01)


@pytest.mark.parametrize("name", ["mixer_s16", "mixer_b16"])
def test_a_mixer_costs_what_its_sizes_say(name: str) -> None:
    sizes = vars(VARIANTS[name].sizes)
    tokens, width = (224 // sizes["patch_size"]) ** 2, sizes["hidden_dim"]
    block = 2 * tokens * width * (sizes["tokens_mlp_dim"] + sizes["channels_mlp_dim"])
    stem = tokens * sizes["patch_size"] ** 2 * 3 * width
    expected = 2 * (stem + sizes["num_blocks"] * block + width * 1000)
    with torch.device("meta"):
        module = build(network_of(name), 224)
    assert count_flops(module, 224) == expected


def test_a_loaded_module_is_counted_without_touching_it() -> None:
    module = exported.classifier("mixer_tiny").module
    before = {name: parameter.clone() for name, parameter in module.named_parameters()}
    assert count_flops(module, 32) > 0
    for name, parameter in module.named_parameters():
        assert parameter.device.type == "cpu"
        assert torch.equal(parameter, before[name])
