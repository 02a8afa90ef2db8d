"""ImageNet-1k's names: all of them, each once, and only where they are certain."""

import pytest

from contracts import imagenet


def test_there_are_a_thousand_different_names() -> None:
    names = imagenet.names()
    assert len(set(names)) == 1000
    # Some that everybody knows the index of.
    known = {0: "tench", 1: "goldfish", 207: "golden retriever", 281: "tabby", 282: "tiger cat"}
    known |= {
        285: "Egyptian cat",
        134: "crane (bird)",
        517: "crane (machine)",
        999: "toilet tissue",
    }
    assert {index: names[index] for index in known} == known


@pytest.mark.parametrize(
    "source",
    [
        "Mixer-B_16.npz",
        "ViT-B_16-224.npz",
        "BiT-M-R50x1-ILSVRC2012.npz",
        "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k.npz",
        "miil_in21k_ft_in1k",
        "augreg_in1k",
        "sam_in1k",
    ],
)
def test_files_of_imagenet_are_known(source: str) -> None:
    assert imagenet.names_for(1000, source) == imagenet.names()
    assert imagenet.names_for(21843, source) is None


@pytest.mark.parametrize(
    "source",
    ["checkpoint.npz", "my_mixer.npz", "Mixer-B_16-flowers.npz", "goog_in21k", "model", ""],
)
def test_other_files_of_a_thousand_classes_are_not(source: str) -> None:
    assert imagenet.names_for(1000, source) is None
