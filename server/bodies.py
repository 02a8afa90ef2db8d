"""Reading request bodies: never more than the limits, never through a temporary file.

The limits are on the bytes of one body, on the bytes of all that are held at the same time, and on
the seconds that a client may take to send one.

In: the ASGI request. Out: the bytes of its pictures, from a raw body or from the `image` fields of
a multipart form (RFC 7578).
"""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from server.problems import (
    BadParameter,
    BodyTooLarge,
    NoImage,
    SlowRequest,
    TooBusy,
    UnsupportedType,
)

FIELD = "image"
HOW = (
    "send the picture as the body with Content-Type image/* or application/octet-stream, "
    f"or as the field {FIELD!r} of multipart/form-data"
)
# A part needs two headers of some 100 bytes each; the parser's own limits are wider.
MAX_PARTS = 1024


@dataclass
class Upload:
    """One field of a form, or the whole body: its bytes, and the name that the client gave."""

    name: str
    filename: str | None
    data: bytes


@dataclass
class _Part:
    headers: dict[bytes, bytes] = field(default_factory=dict)
    header: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)
    data: bytearray = field(default_factory=bytearray)


class Bodies:
    """The limits, and how many bytes the bodies that are held now have together."""

    def __init__(self, max_bytes: int, max_held: int, seconds: float) -> None:
        self.max_bytes = max_bytes
        self.max_held = max_held
        self.seconds = seconds
        self.held = 0

    @contextlib.contextmanager
    def hold(self) -> Iterator["Hold"]:
        """A body is read and held inside."""
        hold = Hold(self)
        try:
            yield hold
        finally:
            self.held -= hold.size


@dataclass
class Hold:
    """The share of one request in what is held."""

    bodies: Bodies
    size: int = 0

    def take(self, count: int) -> None:
        """Account for `count` more bytes. Raises `BodyTooLarge` or `TooBusy`."""
        self.size += count
        self.bodies.held += count
        if self.size > self.bodies.max_bytes:
            raise BodyTooLarge(
                f"the body has more than the {self.bodies.max_bytes} bytes that are accepted"
            )
        if self.bodies.held > self.bodies.max_held:
            raise TooBusy("the requests under way fill the memory that they may take; try again")


async def read_image(request: Request, hold: Hold) -> bytes:
    """The one picture of a request, from a raw body or a form.

    Raises `UnsupportedType`, `NoImage`, `BadParameter`, or as `read_body`.
    """
    content_type = request.headers.get("content-type", "application/octet-stream")
    kind, options = parse_options_header(content_type)
    if kind == b"multipart/form-data":
        uploads = _images(await read_body(request, hold), options)
        if len(uploads) > 1:
            raise NoImage(
                f"the form has {len(uploads)} fields {FIELD!r}, one is expected; "
                "POST /classify/batch takes several"
            )
        data = uploads[0].data
    elif kind.startswith(b"image/") or kind == b"application/octet-stream":
        data = await read_body(request, hold)
    else:
        raise UnsupportedType(f"Content-Type is {content_type!r}; {HOW}")
    if not data:
        raise NoImage(f"the picture has 0 bytes; {HOW}")
    return data


async def read_images(request: Request, hold: Hold) -> list[Upload]:
    """The pictures of a form, at least one, in their order.

    Raises `UnsupportedType`, `NoImage`, `BadParameter`, or as `read_body`.
    """
    content_type = request.headers.get("content-type", "")
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise UnsupportedType(
            f"Content-Type is {content_type!r}; send the pictures as fields {FIELD!r} of "
            "multipart/form-data"
        )
    return _images(await read_body(request, hold), options)


async def read_body(request: Request, hold: Hold) -> bytes:
    """The whole body.

    Raises `BodyTooLarge` as soon as it is known to exceed its limit, `TooBusy` when there is no
    room for it, `SlowRequest` when it takes too long.
    """
    limit, seconds = hold.bodies.max_bytes, hold.bodies.seconds
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise BodyTooLarge(f"the body has {declared} bytes, at most {limit} are accepted")
    chunks: list[bytes] = []
    more = True
    try:
        async with asyncio.timeout(seconds):
            while more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                chunk = message.get("body", b"")
                hold.take(len(chunk))
                chunks.append(chunk)
                more = message.get("more_body", False)
    except TimeoutError:
        raise SlowRequest(
            f"only {hold.size} bytes of the body came within {seconds:g} s; send it faster"
        ) from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _images(body: bytes, options: dict[bytes, bytes]) -> list[Upload]:
    uploads = parse_form(body, options.get(b"boundary", b""))
    images = [upload for upload in uploads if upload.name == FIELD]
    others = ", ".join(sorted({repr(upload.name[:40]) for upload in uploads} - {repr(FIELD)}))
    if not images:
        raise NoImage(f"the form has no field {FIELD!r} (its fields: {others or 'none'}); {HOW}")
    if others:
        raise BadParameter(
            f"the form has more than the field {FIELD!r}: {others}; model and top_k are "
            "parameters of the query, as in /classify?model=NAME&top_k=3"
        )
    return images


def parse_form(body: bytes, boundary: bytes) -> list[Upload]:
    """The fields of a multipart/form-data body, in their order. Raises `NoImage` if malformed."""
    uploads: list[Upload] = []
    part = _Part()
    finished = False

    def begin() -> None:
        nonlocal part
        if len(uploads) >= MAX_PARTS:
            raise NoImage(f"the form has more than {MAX_PARTS} fields")
        part = _Part()

    def header_end() -> None:
        part.headers[bytes(part.header).lower()] = bytes(part.value)
        part.header.clear()
        part.value.clear()

    def end() -> None:
        disposition = part.headers.get(b"content-disposition", b"")
        _, options = parse_options_header(disposition)
        name, filename = options.get(b"name", b""), options.get(b"filename")
        uploads.append(
            Upload(
                name.decode("utf-8", "replace"),
                None if filename is None else filename.decode("utf-8", "replace"),
                bytes(part.data),
            )
        )

    def finish() -> None:
        nonlocal finished
        finished = True

    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": begin,
                "on_header_field": lambda data, at, to: part.header.extend(data[at:to]),
                "on_header_value": lambda data, at, to: part.value.extend(data[at:to]),
                "on_header_end": header_end,
                "on_part_data": lambda data, at, to: part.data.extend(memoryview(data)[at:to]),
                "on_part_end": end,
                "on_end": finish,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise NoImage(f"the multipart body is malformed: {error}") from error
    if not finished:
        raise NoImage(
            "the multipart body is malformed: its closing boundary "
            f"--{boundary.decode('latin-1')}-- is missing"
        )
    return uploads
