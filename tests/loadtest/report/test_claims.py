"""A claim about the graph, held against the shipped Mixer."""

from collections import Counter

import onnx

from loadtest.report import claims
from tests.waiting import CHECKOUT

# Matrix products, scalar non-linearities, what moves numbers, and the mean over tokens.
NEEDED = {
    *("Add", "Cast", "Div", "Gelu", "LayerNormalization", "MatMul", "ReduceMean", "Reshape"),
    *("Sub", "Transpose"),
}


def test_a_mixer_needs_neither_convolution_nor_attention() -> None:
    path = CHECKOUT / "model_repository/mixer_cifar10/1/model.onnx"
    graph = onnx.load(path, load_external_data=False).graph
    counted = Counter(node.op_type for node in graph.node)
    assert counted["Conv"] <= 1  # the patch embedding may be one
    assert counted["Softmax"] == 1  # of the classes
    assert set(counted) - {"Conv", "Softmax"} <= NEEDED


def test_every_claim_has_a_check() -> None:
    assert len({claim for claim, _ in claims.CLAIMS}) == len(claims.CLAIMS) == 11
