"""The layers that lose the most accuracy in INT8: they stay in FP32 if the gate would be missed.

In: the traced graph before it is quantised, the limits of its activations, images from the half for
calibration. Out: the layers, ordered by their loss, the largest first. The images for judgement are
not used here, so that the choice of layers is not fitted to them.
"""

from pathlib import Path

import numpy as np
import onnx_ir as ir

from contracts.repository import INPUT, LOGITS
from export.graph import open_graph, save_graph
from export.parity import Pixels
from export.progress import track
from export.quantization import layer_names, quantize

# The graph is run once for each layer, with only this layer in INT8, on so many images. Few images
# suffice for the order.
IMAGES = 8


def by_cost(model: ir.Model, limits: dict[str, float], images: Pixels, scratch: Path) -> list[str]:
    """The names of the layers, by the mean squared error of the logits that each causes alone.

    `images` are uint8 [N, H, W, 3]; `scratch` is a folder for temporary files.
    """
    names = layer_names(model)
    path = scratch / "model.onnx"
    images = images[:IMAGES]
    save_graph(model, path)
    right = open_graph(path).run([LOGITS], {INPUT: images})[0]
    costs = {}
    for name in track(names, "finding the dearest layers"):
        one = model.clone()
        quantize(one, limits, kept=set(names) - {name})
        save_graph(one, path)
        found = open_graph(path).run([LOGITS], {INPUT: images})[0]
        costs[name] = float(np.mean((found - right) ** 2))
    return sorted(names, key=lambda name: costs[name], reverse=True)
