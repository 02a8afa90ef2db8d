"""The facts about an ONNX graph: those that it contains, and those that the user must state.

In: an ONNX file of an image classifier, and the user's statements about it. Out: a `Reading`. Facts
that are certain are read off the graph. For any other fact an error names the flag by which the
user states it. A graph that this program cannot serve is refused with one sentence.
"""

import dataclasses
from pathlib import Path
from typing import Literal

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

from contracts.npz import described, read_start
from export.embedding import RESHAPERS
from export.preprocessing import Activation, Normalization

Layout = Literal["nchw", "nhwc"]
ChannelOrder = Literal["rgb", "bgr"]
# "none": the outputs of the graph are already probabilities.
AskedActivation = Literal["softmax", "sigmoid", "none"]

# The first opset whose Softmax works along one axis. Older graphs are converted.
LEAST_OPSET = 13


class GraphError(ValueError):
    """The graph cannot be published as it is; the message is one sentence for the user."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """The user's statements about a graph; None where the user states nothing."""

    normalization: Normalization | None = None
    layout: Layout | None = None
    channel_order: ChannelOrder = "rgb"
    activation: AskedActivation | None = None
    output: str | None = None
    image_size: int | None = None  # pixels per side


@dataclasses.dataclass(frozen=True)
class Reading:
    """The facts about a graph."""

    image: ir.Value  # its input
    takes_bytes: bool  # uint8 pixels, so that normalisation is inside
    layout: Layout
    height: int  # pixels
    width: int
    batch: int | None  # the only number of images that it takes; None: any number
    scores: ir.Value  # its output [N, K]
    logits: ir.Value  # the input of the activation, if the graph ends with one; else `scores`
    inside: Literal["softmax", "sigmoid"] | None  # the activation that ends the graph


def load_graph(path: Path) -> ir.Model:
    """Read an ONNX file; functions are inlined, Constant nodes become initialisers.

    Raises GraphError.
    """
    if not path.is_file():
        raise GraphError("no such file" if not path.exists() else "expected a file")
    try:
        model = ir.load(path)
        version = model.opset_imports.get("", 0)
        if version < LEAST_OPSET:
            model = _converted(onnx.load(path), version)
        for rewrite in (
            passes.InlinePass(),
            passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
            passes.RemoveInitializersFromInputsPass(),
            passes.ShapeInferencePass(),
        ):
            rewrite(model)
    except GraphError:
        raise
    except Exception as error:  # the parser may raise anything on a broken file
        reason = str(error).partition("\n")[0][:200]
        if type(error).__name__ == "DecodeError":  # protobuf's, in its own words
            reason = f"{described(read_start(path))}; it is no ONNX file, or not a whole one"
        raise GraphError(
            f"expected an ONNX graph, found {reason or type(error).__name__}"
        ) from None
    if not model.graph.inputs or not model.graph.outputs:
        raise GraphError("expected an ONNX graph with an input and an output, found none")
    return model


def _converted(model: onnx.ModelProto, version: int) -> ir.Model:
    """The graph, converted to the oldest opset that this program accepts."""
    if not version:
        raise GraphError("expected an ONNX graph, found no version of its operators")
    try:
        converted = onnx.version_converter.convert_version(model, LEAST_OPSET)
    except Exception as error:  # the converter has exception classes of its own
        reason = str(error).partition("\n")[0][:120]
        raise GraphError(
            f"its operators are of set {version}, and ONNX cannot convert them to {LEAST_OPSET} "
            f"({reason}): export it again with a newer opset"
        ) from None
    return ir.from_proto(converted)


def read_graph(model: ir.Model, asked: Asked) -> Reading:
    """Find out the input and the output of a graph; raises GraphError."""
    image = _image(model)
    takes_bytes = image.dtype == ir.DataType.UINT8
    _check_normalization(asked, takes_bytes=takes_bytes)
    layout, height, width = _layout(image, asked)
    scores = _scores(model, asked)
    logits, inside = _activation_inside(scores)
    if inside is not None and asked.activation not in (None, inside):
        raise GraphError(
            f"--activation {asked.activation}: the graph ends in a {inside} of its own; leave the "
            "flag out"
        )
    if inside is None and asked.activation is None:
        raise GraphError(
            f"the graph ends in {_op(scores)}, so it does not say what its numbers are: "
            "--activation softmax if it chooses one class, sigmoid if each class is a yes or no, "
            "none if they are probabilities already"
        )
    batch = _fixed(image, 0)
    return Reading(image, takes_bytes, layout, height, width, batch, scores, logits, inside)


def final_activation(reading: Reading, asked: Asked) -> Activation | None:
    """The activation that turns logits into probabilities.

    None where the user states that the scores are already probabilities.
    """
    if reading.inside is not None:
        return reading.inside
    return None if asked.activation == "none" else asked.activation


def _image(model: ir.Model) -> ir.Value:
    inputs = list(model.graph.inputs)
    if len(inputs) != 1:
        found = ", ".join(_described(value) for value in inputs)
        raise GraphError(f"the graph takes {len(inputs)} inputs ({found}), expected one image")
    image = inputs[0]
    if image.dtype not in (ir.DataType.FLOAT, ir.DataType.UINT8):
        raise GraphError(
            f"the graph takes {_described(image)}, expected float32 or uint8: export it in float32 "
            "(--precision fp16 makes halves of it here)"
        )
    if image.shape is None or len(image.shape) != 4:
        raise GraphError(f"the graph takes {_described(image)}, expected images of 4 dimensions")
    return image


def _check_normalization(asked: Asked, *, takes_bytes: bool) -> None:
    if takes_bytes and asked.normalization is not None:
        raise GraphError(
            "--mean and --std: the graph takes uint8 pixels, so it normalises them itself; leave "
            "both out"
        )
    if not takes_bytes and asked.normalization is None:
        raise GraphError(
            "the graph takes float32 pixels and does not say how they are normalised: --mean R G B "
            "--std R G B of pixel / 255, as 0.485 0.456 0.406 and 0.229 0.224 0.225 for most of "
            "torchvision's and timm's models (0 0 0 and 1 1 1 for pixels from 0 to 1)"
        )


def _layout(image: ir.Value, asked: Asked) -> tuple[Layout, int, int]:
    candidates: dict[Layout, tuple[int, int, int]] = {"nchw": (1, 2, 3), "nhwc": (3, 1, 2)}
    certain: list[Layout] = [
        layout for layout, axes in candidates.items() if _fixed(image, axes[0]) == 3
    ]
    if asked.layout is not None:
        found = _fixed(image, candidates[asked.layout][0])
        if found not in (3, None):
            raise GraphError(
                f"--layout {asked.layout}: the graph takes {_described(image)}, which has {found} "
                "channels there, expected 3"
            )
        layout = asked.layout
    elif len(certain) == 1:
        layout = certain[0]
    elif certain or None in (_fixed(image, 1), _fixed(image, 3)):
        raise GraphError(
            f"the graph takes {_described(image)}, which does not say where the channels are: "
            "--layout nchw or nhwc"
        )
    else:
        raise GraphError(f"the graph takes {_described(image)}, expected images of 3 channels")
    sides = [_fixed(image, axis) for axis in candidates[layout][1:]]
    if None in sides and asked.image_size is None:
        raise GraphError(
            f"the graph takes {_described(image)}, images of any size: --image-size says which"
        )
    if asked.image_size is not None and any(side not in (asked.image_size, None) for side in sides):
        raise GraphError(
            f"--image-size {asked.image_size}: the graph takes {_described(image)} and no other"
        )
    height, width = (side or asked.image_size or 0 for side in sides)
    return layout, height, width


def _scores(model: ir.Model, asked: Asked) -> ir.Value:
    outputs = list(model.graph.outputs)
    shown = ", ".join(_described(value) for value in outputs)
    if asked.output is not None:
        outputs = [value for value in outputs if value.name == asked.output]
        if not outputs:
            raise GraphError(f"--output {asked.output}: the graph has the outputs {shown}")
    if len(outputs) != 1:
        raise GraphError(
            f"the graph has {len(outputs)} outputs ({shown}), expected one, the scores of the "
            "classes; if one of these is that, --output names it (detectors are not served)"
        )
    scores = outputs[0]
    if scores.dtype not in (ir.DataType.FLOAT, None):
        raise GraphError(
            f"the graph gives {_described(scores)}, expected float32 scores for each class"
        )
    if scores.shape is not None:
        rest = [_fixed(scores, axis) for axis in range(2, len(scores.shape))]
        if len(scores.shape) < 2 or any(size != 1 for size in rest):
            raise GraphError(
                f"the graph gives {_described(scores)}, expected scores [N, classes]: it is no "
                "classifier"
            )
    return scores


def _activation_inside(
    scores: ir.Value,
) -> tuple[ir.Value, Literal["softmax", "sigmoid"] | None]:
    """The input of the activation at the end of a graph, and the activation's name."""
    value = scores
    while (node := value.producer()) is not None and node.op_type in RESHAPERS and node.inputs[0]:
        value = node.inputs[0]
    if node is None or not node.inputs or node.inputs[0] is None:
        return scores, None
    before = node.inputs[0]
    if node.op_type == "Sigmoid":
        return before, "sigmoid"
    if node.op_type in ("Softmax", "LogSoftmax") and _over_classes(node, value):
        return before, "softmax"
    return scores, None


def _over_classes(node: ir.Node, value: ir.Value) -> bool:
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
    rank = len(value.shape) if value.shape is not None else 2
    return axis % rank == 1


def _fixed(value: ir.Value, axis: int) -> int | None:
    """The size of an axis if it is a number above 0, else None."""
    size = value.shape[axis] if value.shape is not None else None
    return size if isinstance(size, int) and size > 0 else None


def _op(value: ir.Value) -> str:
    node = value.producer()
    return node.op_type if node is not None else "its input"


def _described(value: ir.Value) -> str:
    dtype = value.dtype.name.lower() if value.dtype is not None else "tensor"
    dtype = {"float": "float32", "double": "float64"}.get(dtype, dtype)
    if value.shape is None:
        return f"{value.name} {dtype}"
    return f"{value.name} {dtype}[{', '.join(str(size) for size in value.shape)}]"
