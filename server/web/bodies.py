"""Reading request bodies: never more than the limits, never through a temporary file.

The limits are on the bytes of one body, on the bytes of all that are held at the same time, and on
the seconds that a client may take to send one.

In: the ASGI request. Out: the bytes of its images, from a raw body or from the `image` fields of
a multipart form (RFC 7578).
"""

import asyncio
import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect

from server.problems import (
    BadBody,
    BadParameter,
    BodyTooLarge,
    NoImage,
    SlowRequest,
    UnsupportedEncoding,
    UnsupportedType,
)
from server.serving.buffers import Hold
from server.serving.images.decoding import begins_like_image
from server.web.connections import connection_of
from server.web.json_bodies import from_base64, kind_of, named, parse_json

FIELD, FIELDS = "image", "images"
FORM = "multipart/form-data"
HOW = (
    "send the image as the body with Content-Type image/* or application/octet-stream, "
    f"or as the field {FIELD!r} of multipart/form-data"
)
# The type that curl --data-binary, urllib and axios declare for bytes by default.
WEB_FORM = b"application/x-www-form-urlencoded"
BYTES = {b"application/octet-stream", WEB_FORM}
# A form is parsed on the event loop: whatever costs more than finding and copying bytes is bounded.
MAX_PARTS = 1024
# Bytes in the headers of all parts together: two headers of some 100 bytes each for every part.
MAX_HEADER_BYTES = 256 * 2**10
MAX_HEADER_SEMICOLONS = 16 * 2**10  # this many take 15 ms
# Semicolons in a header with parameters. The file name, 255 characters at most, may contain ";",
# and has one for each character outside a page's charset (HTML, 4.10.21.8: "&#26085;").
MAX_SEMICOLONS = 300
MAX_PARAMETER_BYTES = 4096
MOST_NAME_BYTES = 4096  # of a path that was sent instead of its file
QUOTED = re.compile(rb'"(?:\\.|[^"\\])*"')
# RFC 8187, 3.2.1: charset, language, percent-encoded bytes; only these two charsets.
EXTENDED_FILENAME = re.compile(
    rb";[ \t]*filename\*[ \t]*=[ \t]*(utf-8|iso-8859-1)'[\w-]*'([^;\s]*)", re.IGNORECASE
)
# RFC 2046 allows 70 characters, and blanks that a transport has added after a boundary.
MAX_BOUNDARY = 256
MAX_PADDING = 16


@dataclass
class Upload:
    """One field of a form, or the whole body: its bytes, and the name that the client gave."""

    name: str
    filename: str | None
    data: bytes


async def read_image(request: Request, hold: Hold) -> bytes:
    """The one image of a request, from a raw body or a form.

    Raises `UnsupportedType`, `NoImage`, `BadParameter`, or as `read_body`.
    """
    check_encoding(request)
    content_type, kind, options = _content_type(request, "application/octet-stream")
    if kind == b"multipart/form-data":
        uploads = _images(await read_body(request, hold), options)
        if len(uploads) > 1:
            raise NoImage(
                f"the form has {len(uploads)} fields {FIELD!r}, one is expected; "
                "POST /classify/batch takes several"
            )
        check_is_file(uploads[0])
        data = uploads[0].data
    elif kind == b"application/json":
        given = parse_json(await read_body(request, hold))
        if set(given) != {FIELD}:
            raise BadBody(f"the JSON has {named(given)}, expected is {{{FIELD!r}: BASE64}}")
        data = from_base64(given[FIELD])
    elif kind.startswith(b"image/") or kind in BYTES:
        data = await read_body(request, hold)
        if kind == WEB_FORM and not begins_like_image(data):
            raise UnsupportedType(f"Content-Type is {content_type!r}; {HOW}")
    else:
        raise UnsupportedType(f"Content-Type is {content_type!r}; {HOW}")
    if not data:
        raise NoImage(f"the image has 0 bytes; {HOW}")
    return data


async def read_images(request: Request, hold: Hold) -> list[Upload]:
    """The images of a form, at least one, in their order.

    Raises `UnsupportedType`, `NoImage`, `BadParameter`, or as `read_body`.
    """
    check_encoding(request)
    content_type, kind, options = _content_type(request, "")
    if kind != b"multipart/form-data":
        raise UnsupportedType(
            f"Content-Type is {content_type!r}; send the images as fields {FIELD!r} of "
            "multipart/form-data"
        )
    return _images(await read_body(request, hold), options)


async def read_one_or_many(request: Request, hold: Hold) -> list[Upload]:
    """The images of a request, at least one: a raw body, a form, or JSON with one or several.

    Raises `UnsupportedType`, `NoImage`, `BadParameter`, `BadBody`, or as `read_body`.
    """
    check_encoding(request)
    _, kind, options = _content_type(request, "application/octet-stream")
    if kind == b"multipart/form-data":
        return _images(await read_body(request, hold), options)
    if kind != b"application/json":
        return [Upload(FIELD, None, await read_image(request, hold))]
    given = parse_json(await read_body(request, hold))
    if set(given) == {FIELD}:
        return [Upload(FIELD, None, from_base64(given[FIELD]))]
    if set(given) != {FIELDS}:
        raise BadBody(
            f"the JSON has {named(given)}, expected is {{{FIELD!r}: BASE64}} or "
            f"{{{FIELDS!r}: [BASE64, …]}}"
        )
    listed = given[FIELDS]
    if not isinstance(listed, list):
        raise BadBody(f"{FIELDS!r} is a list of images in base64, this is {kind_of(listed)}")
    if not listed:
        raise NoImage(f"{FIELDS!r} has no image")
    return [Upload(FIELD, None, from_base64(each)) for each in listed]


def check_encoding(request: Request) -> None:
    """Raise `UnsupportedEncoding` if the body has a content coding (RFC 9110, 8.4)."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.strip().lower() not in {"", "identity"}:
        raise UnsupportedEncoding(
            f"Content-Encoding is {encoding[:60]!r}; send the body as it is, without one"
        )


async def read_body(request: Request, hold: Hold) -> bytes:
    """The whole body.

    Raises `BodyTooLarge` as soon as it is known to exceed its limit, `TooBusy` when there is no
    room for it, `SlowRequest` when it takes too long.
    """
    limit, seconds = hold.buffers.max_bytes, hold.buffers.seconds
    declared = connection_of(request.scope).framing.length
    if declared is not None and declared > limit:
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


def form_fields(request: Request, body: bytes) -> list[Upload]:
    """All fields of a form. Raises `NoImage`, or `UnsupportedType` for an overlong type."""
    _, _, options = _content_type(request, "")
    return parse_form(body, options.get(b"boundary", b""))


def _content_type(request: Request, otherwise: str) -> tuple[str, bytes, dict[bytes, bytes]]:
    content_type = request.headers.get("content-type", otherwise)
    if not _is_modest(content_type.encode("latin-1")):
        raise UnsupportedType(
            f"Content-Type has more than {MAX_PARAMETER_BYTES} bytes or {MAX_SEMICOLONS} "
            f"semicolons; {HOW}"
        )
    return content_type, *parse_options_header(content_type)


def check_is_file(upload: Upload) -> None:
    """Raise `UnsupportedType` for a field that has the name of a file instead of its bytes."""
    text = upload.data
    short = upload.filename is None and 0 < len(text) <= MOST_NAME_BYTES
    if short and text.isascii() and text.decode().isprintable():
        raise UnsupportedType(
            f"the field {upload.name[:40]!r} is the text {text[:60].decode()!r} and no image; "
            f"with curl a file needs an @: -F {upload.name[:40]}=@FILE"
        )


def _is_modest(header: bytes) -> bool:
    """Whether its parameters are parsed fast: the time grows with their number times its length."""
    return len(header) <= MAX_PARAMETER_BYTES and header.count(b";") <= MAX_SEMICOLONS


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
    """The fields of a multipart/form-data body, in their order. Raises `NoImage` if malformed.

    python_multipart's parser is not used: it goes through some states byte by byte, so that 32 MiB
    of blanks after a boundary would stop the event loop for seconds.
    """
    if not 1 <= len(boundary) <= MAX_BOUNDARY:
        raise _malformed(
            f"its Content-Type names a boundary of {len(boundary)} bytes, "
            f"1 to {MAX_BOUNDARY} are expected"
        )
    # No line of a part begins with the delimiter, whatever follows (RFC 2046, section 5.1.1).
    delimiter = b"\r\n--" + boundary
    uploads: list[Upload] = []
    room, semicolons = MAX_HEADER_BYTES, 0
    start = len(body[:MAX_PADDING]) - len(body[:MAX_PADDING].lstrip(b"\r\n"))
    if start and body.startswith(delimiter[2:], start):
        body = body[start:]
    # The first delimiter may lack its CRLF: then the search assumes CRLF before the body.
    found = -2 if body.startswith(delimiter[2:]) else body.find(delimiter)
    while found != -1:
        after = found + len(delimiter)
        if body.startswith(b"--", after):
            return uploads
        if len(uploads) == MAX_PARTS:
            raise NoImage(f"the form has more than {MAX_PARTS} fields")
        line_end = body.find(b"\r\n", after, after + MAX_PADDING + 2)
        if line_end == -1 or body[after:line_end].strip(b" \t"):
            raise _malformed(
                f"at byte {after} its boundary is not followed by -- or the end of the line, "
                "so use a boundary that no part contains"
            )
        headers_end = body.find(b"\r\n\r\n", line_end, line_end + room + 4)
        if headers_end == -1:
            raise _malformed(
                f"the headers of a part do not end with an empty line, or those of all parts have "
                f"more than {MAX_HEADER_BYTES} bytes"
            )
        headers = body[line_end + 2 : headers_end]
        room -= len(headers)
        semicolons += headers.count(b";")
        if semicolons > MAX_HEADER_SEMICOLONS:
            raise _malformed(
                f"the headers of all parts have more than {MAX_HEADER_SEMICOLONS} semicolons"
            )
        found = body.find(delimiter, headers_end + 4)
        if found != -1:
            uploads.append(_upload(headers, body[headers_end + 4 : found]))
    raise _malformed(f"its closing boundary --{boundary.decode('latin-1')}-- is missing")


def _upload(headers: bytes, data: bytes) -> Upload:
    disposition = b""
    for line in headers.split(b"\r\n") if headers else ():
        name, colon, value = line.partition(b":")
        if not name or not colon:
            raise _malformed(f"a part has the line {line[:40]!r} where NAME: VALUE is expected")
        if name.lower() == b"content-disposition":
            disposition = value.strip(b" \t")
    if not _is_modest(disposition):
        raise _malformed(
            f"a Content-Disposition has more than {MAX_PARAMETER_BYTES} bytes or {MAX_SEMICOLONS} "
            "semicolons; shorten the file name"
        )
    _, options = parse_options_header(disposition)
    name, filename = options.get(b"name", b""), options.get(b"filename")
    plain = None if filename is None else filename.decode("utf-8", "replace")
    extended = _extended_filename(disposition) if b"*" in disposition else None
    return Upload(name.decode("utf-8", "replace"), extended or plain, data)


def _extended_filename(disposition: bytes) -> str | None:
    """The value of `filename*` (RFC 8187), which some clients send against RFC 7578, 4.2."""
    found = EXTENDED_FILENAME.search(QUOTED.sub(b'""', disposition))
    if found is None:
        return None
    return unquote_to_bytes(found[2]).decode(found[1].decode(), "replace")


def _malformed(how: str) -> NoImage:
    return NoImage(f"the multipart body is malformed: {how}")
