"""Writers of image files that Pillow does not write: samples of any depth, odd headers, keys.

In: numpy arrays and tags. Out: bytes of a file, made from the formats' specifications alone, so
that they say independently of Pillow what a file means.
"""

import io
import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

SIZE = 24  # pixels per side of most images here
Array = npt.NDArray[np.integer]
Values = tuple[int, ...]


def two(left: Values, right: Values) -> Array:
    """[SIZE, SIZE, C] samples: a plain left and a plain right half."""
    samples = np.empty((SIZE, SIZE, len(left)), np.int64)
    samples[:, : SIZE // 2] = left
    samples[:, SIZE // 2 :] = right
    return samples


def scene(width: int = 56, height: int = 40, seed: int = 5) -> npt.NDArray[np.uint8]:
    """A smooth colourful image that no turn or mirroring leaves as it is; uint8[H, W, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def saved(image: Image.Image | npt.NDArray[np.uint8], kind: str, **options: object) -> bytes:
    """A file as Pillow writes it."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def rows(samples: Array, bits: int, *, order: str = ">") -> list[bytes]:
    """Each row of [H, W, C] samples, packed; the first sample lies in the highest bits."""
    packed = []
    for row in samples.reshape(len(samples), -1):
        if bits % 8 == 0:
            packed.append(row.astype(f"{order}u{bits // 8}").tobytes())
        else:
            digits = "".join(f"{sample:0{bits}b}" for sample in row.tolist())
            digits += "0" * (-len(digits) % 8)
            packed.append(int(digits, 2).to_bytes(len(digits) // 8, "big"))
    return packed


# PNG, third edition


def chunk(kind: bytes, data: bytes, *, right: bool = True) -> bytes:
    """A chunk, with a checksum that is right or not."""
    checksum = zlib.crc32(kind + data) ^ (not right)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png(
    samples: Array,
    bits: int,
    colour: int,
    before: bytes = b"",
    after: bytes = b"",
    *,
    interlaced: bool = False,
) -> bytes:
    """A PNG of [H, W, C] samples, with more chunks before and after its pixels."""
    height, width = samples.shape[:2]
    parts = [samples]
    if interlaced:  # 8.1: the seven passes of Adam7
        parts = [
            *(samples[::8, ::8], samples[::8, 4::8], samples[4::8, ::4], samples[::4, 2::4]),
            *(samples[2::4, ::2], samples[::2, 1::2], samples[1::2]),
        ]
    raw = b"".join(b"\0" + row for part in parts if part.size for row in rows(part, bits))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    pixels = chunk(b"IDAT", zlib.compress(raw))
    return b"".join(
        (b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), before, pixels, after, chunk(b"IEND", b""))
    )


def with_chunks(data: bytes, *chunks: bytes) -> bytes:
    """A PNG with more chunks right after its header."""
    return data[:33] + b"".join(chunks) + data[33:]


# JPEG, ITU-T T.81


def segment(code: int, data: bytes) -> bytes:
    """A marker with its length and contents."""
    return bytes((0xFF, code)) + struct.pack(">H", len(data) + 2) + data


def with_segments(data: bytes, *segments: bytes) -> bytes:
    """A JPEG with more segments right after its start."""
    return data[:2] + b"".join(segments) + data[2:]


# EXIF and TIFF 6.0

LETTERS = {1: "B", 3: "H", 4: "I", 9: "i", 16: "Q"}


def exif(*entries: tuple[int, int, int, bytes], order: str = "<") -> bytes:
    """A block of EXIF with raw entries: tag, type, count, and up to 4 bytes of value."""
    start = {"<": b"II*\0", ">": b"MM\0*"}[order]
    listed = b"".join(
        struct.pack(order + "HHI", tag, kind, count) + value.ljust(4, b"\0")
        for tag, kind, count, value in entries
    )
    return start + struct.pack(order + "IH", 8, len(entries)) + listed + bytes(4)


def turned(orientation: int, order: str = "<") -> bytes:
    """EXIF that says nothing but an orientation."""
    return exif((0x0112, 3, 1, struct.pack(order + "H", orientation)), order=order)


Tags = Mapping[int, tuple[int, Sequence[int]]]


def tiff(strips: Sequence[bytes], width: int, height: int, tags: Tags, order: str = "<") -> bytes:
    """A TIFF of strips; `tags` are {tag: (type, values)} beside the sizes and the strips."""
    every: dict[int, tuple[int, Sequence[int]]] = {
        256: (4, [width]),
        257: (4, [height]),
        259: (3, [1]),
        277: (3, [1]),
        278: (4, [-(-height // len(strips))]),
        **tags,
    }
    pixels = b"".join(strips)
    starts = [8 + sum(map(len, strips[:index])) for index in range(len(strips))]
    every[273], every[279] = (4, starts), (4, [len(strip) for strip in strips])
    beyond = b""
    at = 8 + len(pixels)
    listed = struct.pack(order + "H", len(every))
    values_at = at + 2 + 12 * len(every) + 4
    for tag in sorted(every):
        kind, values = every[tag]
        packed = struct.pack(f"{order}{len(values)}{LETTERS[kind]}", *values)
        if len(packed) > 4:
            packed, beyond = struct.pack(order + "I", values_at + len(beyond)), beyond + packed
        listed += struct.pack(order + "HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    start = {"<": b"II*\0", ">": b"MM\0*"}[order]
    return start + struct.pack(order + "I", at) + pixels + listed + bytes(4) + beyond


def grey_tiff(samples: Array, bits: int, photometric: int, order: str = "<") -> bytes:
    """An uncompressed grey TIFF; 262 is 0 where zero is white, 1 where it is black."""
    strip = b"".join(rows(samples, bits, order=order))
    tags = {258: (3, [bits]), 262: (3, [photometric])}
    return tiff([strip], samples.shape[1], len(samples), tags, order)


def big_tiff(strip: bytes, tags: Mapping[int, tuple[int, int]]) -> bytes:
    """A BigTIFF of one strip; `tags` are {tag: (type, value)} beside those of the strip."""
    every = {273: (16, 16), 279: (16, len(strip)), **tags}
    head = b"II+\0" + struct.pack("<HHQ", 8, 0, 16 + len(strip)) + strip
    listed = b"".join(
        struct.pack("<HHQQ", tag, kind, 1, value) for tag, (kind, value) in sorted(every.items())
    )
    return head + struct.pack("<Q", len(every)) + listed + bytes(8)


# BMP


def bmp(
    pixels: bytes, bits: int, header: int = 40, masks: Values = (), palette: bytes = b""
) -> bytes:
    """A BMP of SIZE × SIZE pixels, bottom row first; `header` is the length of its header."""
    info = struct.pack(
        "<IiiHHIIiiII",
        *(header, SIZE, SIZE, 1, bits, 3 if masks else 0, len(pixels), 0, 0, len(palette) // 4, 0),
    )
    info = (info + struct.pack(f"<{len(masks)}I", *masks)).ljust(header, b"\0")
    start = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + info + palette + pixels


# GIF89a


def gif(
    indices: Array,
    at: tuple[int, int] = (0, 0),
    *,
    screen: tuple[int, int] = (SIZE, SIZE),
    palette: bytes = bytes((255, 0, 0, 0, 0, 255)),
    background: int = 0,
    before: bytes = b"",
) -> bytes:
    """A GIF of one frame of indices below 8 somewhere on a screen; `before` are extensions."""
    bits = (len(palette) // 3 - 1).bit_length()
    head = struct.pack("<HHBBB", *screen, 0x80 | (bits - 1), background, 0) + palette
    place = b"," + struct.pack("<HHHHB", *at, indices.shape[1], indices.shape[0], 0)
    # Codes of 4 bits; the table is cleared (8) before it grows so far that they would need 5.
    codes = [8]
    for count, index in enumerate(indices.ravel().tolist()):
        codes += [8, index] if count % 5 == 0 and count else [index]
    codes.append(9)
    packed = sum(code << 4 * place_ for place_, code in enumerate(codes))
    data = packed.to_bytes((len(codes) + 1) // 2, "little")
    blocks = [data[start : start + 255] for start in range(0, len(data), 255)]
    lzw = b"\3" + b"".join(bytes((len(block),)) + block for block in blocks) + b"\0"
    return b"GIF89a" + head + before + place + lzw + b";"


# WebP, RFC 9649


def riff(*chunks: bytes) -> bytes:
    """A WebP of these chunks."""
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def riff_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk with its length, padded to an even one."""
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
