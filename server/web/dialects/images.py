"""Images as the clients of other servers send them: raw, in a form, or as base64 in JSON.

In: a request, or a value of JSON. Out: encoded images, or pixels. The bytes decide what a body is,
not its declared type: tritonclient and `curl -T` declare none, `curl --data-binary` a web form.
"""

from typing import Any

import numpy as np
from fastapi import Request

from contracts.resizing import Pixels
from server.engines.model import Model
from server.problems import BadBody, NoImage
from server.serving.buffers import Hold
from server.serving.classify import Image
from server.web.bodies import FORM, check_encoding, check_is_file, form_fields, read_body
from server.web.json_bodies import from_base64, kind_of, parse_json

JSON_START = b"{"
NESTED = 4  # objects around the base64 of one image, at most


async def raw_or_json(
    request: Request, hold: Hold, fields: tuple[str, ...] = ()
) -> bytes | dict[str, Any]:
    """The one image of a body or of a form with one of `fields`, or a JSON object."""
    check_encoding(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await read_body(request, hold)
    if kind == FORM and fields:
        given = form_fields(request, body)
        found = [upload.data for upload in given if upload.name in fields]
        if len(found) != 1 or not found[0]:
            names = " or ".join(map(repr, fields))
            raise NoImage(
                f"the form has {len(found)} fields {names}, one with an image is expected"
            )
        check_is_file(next(upload for upload in given if upload.name in fields))
        return found[0]
    if not body:
        raise NoImage("the body has 0 bytes; send an image")
    if kind.endswith("json") or body.lstrip()[:1] == JSON_START:
        return parse_json(body)
    return body


def from_instance(given: object, model: Model) -> Image:
    """An image as it is written in JSON by clients of TensorFlow Serving, KServe and Vertex AI.

    Base64 text; an object with it under `b64`, perhaps under another name first; or rows of pixels.
    """
    for _ in range(NESTED):
        if not isinstance(given, dict):
            break
        if "b64" in given:
            given = given["b64"]
        elif len(given) == 1:
            (given,) = given.values()
        else:
            known = [name for name in ("content", "data", "image", "image_bytes") if name in given]
            if len(known) != 1:
                raise BadBody("an instance is an image, as base64 in the member 'b64'")
            given = given[known[0]]
    if isinstance(given, list):
        return pixels_of(given, model, (model.rule.height, model.rule.width, 3))
    return from_base64(given)


def pixels_of(given: list[Any], model: Model, shape: tuple[int, ...]) -> Pixels:
    """uint8 pixels of whole numbers from 0 to 255, flat or nested. Raises `BadBody`."""
    try:
        numbers = np.array(given)
    except ValueError:
        raise BadBody(f"pixels for {model.name!r} are rows of equal length") from None
    if numbers.dtype.kind not in "iuf" or numbers.dtype == object:
        raise BadBody(f"pixels for {model.name!r} are numbers, this is {kind_of(given)} of others")
    if numbers.shape != shape and numbers.shape != (int(np.prod(shape)),):
        raise BadBody(
            f"pixels for {model.name!r} have the shape {list(shape)}, not {list(numbers.shape)}"
        )
    with np.errstate(invalid="ignore"):  # NaN is none of these numbers
        whole = numbers.astype(np.uint8, casting="unsafe")
    if not (numbers == whole).all() or any(
        type(each) is bool for each in np.array(given, object).ravel()
    ):
        raise BadBody(f"pixels for {model.name!r} are whole numbers from 0 to 255")
    return np.ascontiguousarray(whole.reshape(shape))
