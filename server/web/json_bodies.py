"""JSON bodies, and images in them as base64.

In: the bytes of a body. Out: a JSON object, the bytes of an image; or `BadBody` with what is wrong.
JSON is parsed on the event loop, with the interpreter's lock held, so the amount to parse is
bounded: not in bytes, since a long text costs nothing, but in values.
"""

import base64
import binascii
import json
import re
from typing import Any

from server.problems import BadBody, BodyTooLarge, NoImage

# Seven images of 224 × 224 as lists of numbers: some 60 ms. Encoded images and binary tensors have
# no such limit.
MAX_VALUES = 2**20
DATA_URL = re.compile(r"data:[\w.+/-]*(;[\w=.-]+)*;base64,", re.IGNORECASE)


def parse_json(body: bytes) -> dict[str, Any]:
    """The JSON object of a body. Raises `BadBody`, or `BodyTooLarge` beyond `MAX_VALUES`."""
    if body.count(b",") + body.count(b"[") > MAX_VALUES:
        raise BodyTooLarge(
            f"the JSON has more than {MAX_VALUES} values; send encoded images, or binary tensors"
        )
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise BadBody(f"the body is no JSON: {reason}") from None
    if not isinstance(given, dict):
        raise BadBody(f"the body is JSON, but {kind_of(given)} where an object is expected")
    return given


def from_base64(given: object) -> bytes:
    """The bytes of an image, from base64 (RFC 4648, 4) or a data URL of it (RFC 2397)."""
    if not isinstance(given, str):
        raise BadBody(f"an image in JSON is base64 text, this is {kind_of(given)}")
    prefix = DATA_URL.match(given[:256])
    text = given[prefix.end() :] if prefix else given
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise BadBody(f"an image in JSON is base64 text, which {text[:20]!r}… is not") from None
    if not data:
        raise NoImage("the image has 0 bytes")
    return data


def named(given: dict[str, Any]) -> str:
    """The members of an object, for a sentence."""
    return ", ".join(repr(name[:40]) for name in list(given)[:10]) or "no members"


def kind_of(given: object) -> str:
    """What a value of JSON is, for a sentence."""
    names: dict[type, str] = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        type(None): "null",
    }
    return names.get(type(given), "a number")
