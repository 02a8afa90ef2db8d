"""Files of boxes (ISO/IEC 14496-12) whose items say something else than their pixels.

In: one coded image, as an encoder of AVIF or HEIC has written it. Out: a file that shows it as a
grid of itself (ISO/IEC 23008-12, 6.6.2.3), or that tells another size than it has.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Coded:
    """A coded image: its brand, the kind of its item, its configuration box, and its bytes."""

    brand: bytes
    item: bytes
    configuration: bytes
    data: bytes


def coded(file: bytes) -> Coded:
    """The only image of a file."""
    item, configuration = (b"av01", b"av1C") if b"av1C" in file else (b"hvc1", b"hvcC")
    at = file.index(configuration) - 4
    (size,) = struct.unpack_from(">I", file, at)
    start = file.index(b"mdat") + 4
    (length,) = struct.unpack_from(">I", file, start - 8)
    return Coded(
        file[8:12], item, file[at : at + size], file[start : start - 8 + length if length else None]
    )


def box(kind: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I", 8 + len(data)) + kind + data


def full(kind: bytes, *parts: bytes, version: int = 0, flags: int = 0) -> bytes:
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def size_box(width: int, height: int) -> bytes:
    return full(b"ispe", struct.pack(">II", width, height))


def written(
    image: Coded,
    items: Sequence[tuple[bytes, bytes, Sequence[int]]],
    properties: Sequence[bytes],
    references: bytes = b"",
) -> bytes:
    """A file of `items`: kind, bytes and the numbers of their properties. Same bytes lie once."""
    places: dict[bytes, int] = {}
    body = b""
    for _, data, _ in items:
        if data not in places:
            places[data] = len(body)
            body += data

    def meta(start: int) -> bytes:
        entries = [
            full(b"infe", struct.pack(">HH", number, 0), kind, b"\0", version=2)
            for number, (kind, _, _) in enumerate(items, 1)
        ]
        extents = [
            struct.pack(">HHHII", number, 0, 1, start + places[data], len(data))
            for number, (_, data, _) in enumerate(items, 1)
        ]
        links = [
            struct.pack(">HB", number, len(having)) + bytes(having)
            for number, (_, _, having) in enumerate(items, 1)
        ]
        return full(
            b"meta",
            full(b"hdlr", bytes(4), b"pict", bytes(13)),
            full(b"pitm", struct.pack(">H", 1)),
            full(b"iloc", b"\x44\0", struct.pack(">H", len(items)), *extents),
            full(b"iinf", struct.pack(">H", len(items)), *entries),
            references,
            box(
                b"iprp",
                box(b"ipco", *properties),
                full(b"ipma", struct.pack(">I", len(items)), *links),
            ),
        )

    brands = box(b"ftyp", image.brand, bytes(4), image.brand, b"mif1", b"miaf")
    start = len(brands) + len(meta(0)) + 8
    return brands + meta(start) + box(b"mdat", body)


def of_another_size(image: Coded, width: int, height: int) -> bytes:
    """The image in a file that says that it has `width` × `height` pixels."""
    return written(
        image, [(image.item, image.data, (0x81, 2))], [image.configuration, size_box(width, height)]
    )


def grid(image: Coded, tile: int, across: int, down: int) -> bytes:
    """The square image again and again, as the tiles of a grid."""
    count = across * down
    layout = struct.pack(">BBBBII", 0, 1, down - 1, across - 1, tile * across, tile * down)
    items = [(b"grid", layout, (3,)), *[(image.item, image.data, (0x81, 2))] * count]
    numbers = struct.pack(f">{count}H", *range(2, count + 2))
    references = full(b"iref", box(b"dimg", struct.pack(">HH", 1, count), numbers))
    properties = [image.configuration, size_box(tile, tile), size_box(tile * across, tile * down)]
    return written(image, items, properties, references)
