"""The tensors of the Open Inference Protocol: out of a request, into an answer.

In: the JSON of a request and the bytes behind it. Out: images, and the JSON of the answer with the
bytes behind it; `BadBody` says what does not fit.
"""

import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from contracts.repository import EMBEDDING, PROBABILITIES
from contracts.repository import INPUT as IMAGE
from server.engines.model import Model, Probabilities
from server.problems import BadBody
from server.serving.classify import Image
from server.serving.predictions import best
from server.web.dialects.dialect import whole
from server.web.dialects.images import pixels_of
from server.web.json_bodies import from_base64, kind_of, parse_json

HEADER = "Inference-Header-Content-Length"
Json = dict[str, Any]


@dataclass
class Output:
    """One output that is asked for: best classes (0: the tensor), binary or in JSON."""

    name: str
    classes: int
    binary: bool


@dataclass
class Wanted:
    """What a request asks of its answer."""

    identity: str | None
    outputs: list[Output]

    @property
    def extras(self) -> tuple[str, ...]:
        """The outputs beside the probabilities."""
        return tuple(each.name for each in self.outputs if each.name != PROBABILITIES)


def split(body: bytes, header: str | None) -> tuple[Json, bytes]:
    """The JSON of a body, and the binary tensors behind it."""
    if header is None:
        return parse_json(body), b""
    if not header.isascii() or not header.isdecimal() or not 0 <= int(header[:12]) <= len(body):
        raise BadBody(f"{HEADER} is {header[:20]!r}, the body has {len(body)} bytes")
    length = int(header)
    if length == 0:  # a raw request: the body is the one image
        tensor = {"name": IMAGE, "shape": [1], "datatype": "BYTES", "raw": True}
        return {"inputs": [tensor], "parameters": {"binary_data_output": True}}, body
    return parse_json(body[:length]), body[length:]


def images_of(head: Json, tail: bytes, model: Model) -> list[Image]:
    """The images of the one input."""
    inputs = head.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise BadBody(f"the request has the one input {IMAGE!r}, as a list 'inputs' of one object")
    tensor: Json = inputs[0]
    if tensor.get("name") != IMAGE:
        raise BadBody(f"the input is {IMAGE!r}, not {str(tensor.get('name'))[:40]!r}")
    shape = tensor.get("shape")
    if not isinstance(shape, list) or any(type(n) is not int or n < 0 for n in shape):
        raise BadBody(f"the shape of {IMAGE!r} is a list of whole numbers")
    data = _data(tensor, tail)
    if tensor.get("datatype") == "BYTES":
        return _encoded(shape, data, raw="raw" in tensor)
    if tensor.get("datatype") == "UINT8":
        return _pixels(shape, data, model)
    raise BadBody(f"{IMAGE!r} is UINT8 pixels or BYTES, not {str(tensor.get('datatype'))[:20]!r}")


def _data(tensor: Json, tail: bytes) -> bytes | list[Any]:
    parameters = tensor.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise BadBody("'parameters' of an input is an object")
    if "data" in tensor:
        if tail or "binary_data_size" in parameters:
            raise BadBody("an input has either 'data' or bytes behind the JSON")
        data = tensor["data"]
        if not isinstance(data, list):
            raise BadBody(f"'data' is a list, this is {kind_of(data)}")
        return data
    size = parameters.get("binary_data_size", len(tail))
    if size != len(tail) or isinstance(size, bool):
        raise BadBody(
            f"binary_data_size is {str(size)[:20]}, {len(tail)} bytes are behind the JSON"
        )
    return tail


def _encoded(shape: list[int], data: bytes | list[Any], *, raw: bool) -> list[Image]:
    if shape not in ([shape[0], 1], [shape[0]]) if shape else True:
        raise BadBody("encoded images have the shape [N] or [N, 1]")
    images: list[Image] = []
    if isinstance(data, list):
        while len(data) and isinstance(data[0], list):
            data = [each for row in data for each in (row if isinstance(row, list) else [row])]
        images = [from_base64(each) for each in data]
    elif raw:
        images = [data]
    else:
        at = 0
        while at < len(data):
            if at + 4 > len(data):
                raise BadBody("BYTES are a length of 4 bytes and as many bytes, for each image")
            (length,) = struct.unpack_from("<I", data, at)
            if at + 4 + length > len(data):
                raise BadBody(f"an image of {length} bytes goes beyond the end of the tensor")
            images.append(data[at + 4 : at + 4 + length])
            at += 4 + length
    if len(images) != shape[0] or not images:
        raise BadBody(f"the tensor has {len(images)} images, its shape says {shape[0]}")
    return images


def _pixels(shape: list[int], data: bytes | list[Any], model: Model) -> list[Image]:
    expected = [model.rule.height, model.rule.width, 3]
    if len(shape) != 4 or shape[1:] != expected or shape[0] < 1:
        raise BadBody(f"{IMAGE!r} has the shape {shape[:8]}, expected [N, {expected[0]}, "
                      f"{expected[1]}, 3]")  # fmt: skip
    size = int(np.prod(shape))
    if isinstance(data, list):
        return list(pixels_of(data, model, tuple(shape)))
    if len(data) != size:
        raise BadBody(f"{IMAGE!r} has {len(data)} bytes, its shape asks for {size}")
    return list(np.frombuffer(data, np.uint8).reshape(shape))


def outputs_of(model: Model) -> dict[str, int]:
    """The outputs of a model and the width of each, the probabilities first."""
    return {PROBABILITIES: model.classes, **model.extras}


def wanted_of(head: Json, model: Model) -> Wanted:
    """What a request asks for; without outputs all that the model has, as the protocol says."""
    identity = head.get("id")
    if identity is not None and not isinstance(identity, str):
        raise BadBody("'id' is a text")
    parameters = head.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise BadBody("'parameters' is an object")
    if any(isinstance(value, (dict, list)) for value in parameters.values()):
        raise BadBody("a parameter is a text, a number, true or false")
    binary = parameters.get("binary_data_output", False) is True
    outputs = head.get("outputs")
    known = outputs_of(model)
    if not outputs and outputs in (None, []):
        return Wanted(identity, [Output(name, 0, binary) for name in known])
    if not isinstance(outputs, list) or not all(isinstance(each, dict) for each in outputs):
        raise BadBody("'outputs' is a list of objects, each with the name of an output")
    names = [each.get("name") for each in outputs]
    for name in names:
        if not isinstance(name, str) or name not in known:
            raise BadBody(
                f"model {model.name!r} has no output {str(name)[:40]!r}; it has: {', '.join(known)}"
            )
        if names.count(name) > 1:
            raise BadBody(f"the output {name!r} is asked for twice")
    return Wanted(identity, [_output(each, binary, model) for each in outputs])


def _output(given: Json, binary: bool, model: Model) -> Output:
    own = given.get("parameters") or {}
    if not isinstance(own, dict):
        raise BadBody("'parameters' of an output is an object")
    classes = own.get("classification", 0)
    if classes != 0 or isinstance(classes, bool):
        classes = min(whole(classes, "classification", 2**31), model.classes)
        if given["name"] == EMBEDDING:
            raise BadBody(f"the output {EMBEDDING!r} has no classes")
    return Output(given["name"], classes, own.get("binary_data", binary) is True)


def answer(
    model: Model, version: str, rows: list[Probabilities], wanted: Wanted
) -> tuple[bytes, int | None]:
    """The body of the answer, and the length of its JSON if binary tensors follow.

    A row has the probabilities, and behind them the other outputs that are wanted.
    """
    parts = [model.split(row, wanted.extras) for row in rows]
    outputs, tails = [], []
    for each in wanted.outputs:
        output, data, tail = _tensor(each, model, [part[each.name] for part in parts])
        outputs.append(output)
        if each.binary:
            output["parameters"] = {"binary_data_size": len(tail)}
            tails.append(tail)
        else:
            output["data"] = data
    content: Json = {"model_name": model.name, "model_version": version, "outputs": outputs}
    if wanted.identity is not None:
        content = {"id": wanted.identity, **content}
    head = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    return (b"".join([head, *tails]), len(head)) if tails else (head, None)


def _tensor(
    wanted: Output, model: Model, rows: list[Probabilities]
) -> tuple[Json, list[Any], bytes]:
    """An output without its data; its data in JSON, and in bytes."""
    if not wanted.classes:
        tensor = np.stack(rows).astype("<f4")
        output: Json = {"name": wanted.name, "datatype": "FP32", "shape": list(tensor.shape)}
        return output, tensor.astype(float).ravel().tolist(), tensor.tobytes()
    texts = [
        f"{row[each.index]:.6f}:{each.index}" + (f":{each.label}" if each.label else "")
        for row in rows
        for each in best(model, row, wanted.classes)
    ]
    encoded = [text.encode() for text in texts]
    shape = [len(rows), wanted.classes]
    tail = b"".join(struct.pack("<I", len(text)) + text for text in encoded)
    return {"name": wanted.name, "datatype": "BYTES", "shape": shape}, texts, tail
