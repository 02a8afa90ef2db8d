"""Metadata that are broken, huge or misleading, around pixels that are whole."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from tests.contracts.images.corpus import Case, Pixels
from tests.contracts.images.corpus.writers import (
    chunk,
    exif,
    gif,
    rows,
    saved,
    scene,
    segment,
    tiff,
    turned,
    with_chunks,
    with_segments,
)

SCENE = scene()
UPRIGHT_JPEG = saved(SCENE, "JPEG", quality=95)
# Eleven times what Pillow inflates of a text or a profile at the most.
LARGE = zlib.compress(bytes(11 << 20), 9)
JUNK = (
    b"",
    b"\0",
    b"garbage, and no EXIF",
    b"II*\0",
    b"MM\0*\xff\xff\xff\xff",
    b"II*\0\x08\0\0\0\xff\xff",
)
XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description
 xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>"""
# What is stored so that an orientation turns it upright (CIPA DC-008, tag 0x0112).
STORED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a)[:, ::-1],
    8: lambda a: np.rot90(a, -1),
}


def plainly(data: bytes) -> Pixels:
    """What Pillow alone makes of a plain file."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


DECODED_JPEG = plainly(UPRIGHT_JPEG)


def png(name: str, *chunks: bytes, right: Pixels = SCENE) -> Case:
    return Case(f"PNG with {name}", with_chunks(saved(SCENE, "PNG"), *chunks), right)


def jpeg(name: str, *segments: bytes) -> Case:
    return Case(f"JPEG with {name}", with_segments(UPRIGHT_JPEG, *segments), DECODED_JPEG)


def exif_junk() -> Iterator[Case]:
    for number, junk in enumerate(JUNK):
        yield png(f"junk {number} for EXIF", chunk(b"eXIf", junk))
        yield jpeg(f"junk {number} for EXIF", segment(0xE1, b"Exif\0\0" + junk))
        data = saved(SCENE, "WEBP", lossless=True, exif=junk or b"\0")
        yield Case(f"WebP with junk {number} for EXIF", data, SCENE)
    made = Image.Exif()
    made[0x010F] = "a maker"
    avif = saved(SCENE, "AVIF", exif=made, xmp=XMP)
    junk = avif.replace(made.tobytes()[6:14], b"rubbish!")
    right = plainly(saved(SCENE, "AVIF"))
    yield Case("AVIF with junk for EXIF and XMP that turns", junk, right)
    odd = {
        "of orientation 0": turned(0),
        "of orientation 9": turned(9),
        "of orientation 65535": turned(65535),
        "of two orientations": exif((0x0112, 3, 2, struct.pack("<HH", 6, 6))),
        "of an orientation in letters": exif((0x0112, 2, 2, b"6\0")),
        "of a fraction": exif((0x0112, 5, 1, struct.pack("<I", 8))),
        "of nothing": exif(),
        "whose directory is elsewhere": b"II*\0\xff\xff\0\0" + bytes(40),
    }
    for name, block in odd.items():
        yield png(f"EXIF {name}", chunk(b"eXIf", block))
        yield jpeg(f"EXIF {name}", segment(0xE1, b"Exif\0\0" + block))


def large() -> Iterator[Case]:
    for name, part in {
        "a text": chunk(b"zTXt", b"workflow\0\0" + LARGE),
        "an international text": chunk(b"iTXt", b"prompt\0\1\0\0\0" + LARGE),
        "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LARGE),
        "a profile": chunk(b"iCCP", b"p\0\0" + LARGE),
        "EXIF as text": chunk(b"zTXt", b"Raw profile type exif\0\0" + LARGE),
    }.items():
        yield png(f"{name} of 11 MiB", part)
    yield png("a text of 5 MiB", chunk(b"tEXt", b"parameters\0" + b"x" * (5 << 20)))
    yield png("200 texts", *[chunk(b"zTXt", b"k\0\0" + zlib.compress(b"v"))] * 200)
    yield jpeg("EXIF in 40 segments", *[segment(0xE1, b"Exif\0\0" + bytes(60_000))] * 40)
    yield jpeg("a profile in 255 segments", *[segment(0xE2, b"ICC_PROFILE\0" + bytes(9000))] * 255)
    million = tiff([b"".join(rows(SCENE.astype(int), 8))], 56, 40, {
        258: (3, [8] * 3), 262: (3, [2]), 277: (3, [3]), 700: (1, [32] * 10**6),
    })  # fmt: skip
    yield Case("TIFF with a megabyte of XMP", million, SCENE)


def broken_chunks() -> Iterator[Case]:
    for kind in (b"tEXt", b"zTXt", b"iTXt", b"gAMA", b"cHRM", b"iCCP", b"pHYs", b"eXIf", b"prVt"):
        yield png(f"a wrong checksum of {kind.decode()}", chunk(kind, turned(6), right=False))
    for kind, data in {
        b"gAMA": b"\0",
        b"cHRM": b"\0\0\0",
        b"sRGB": b"",
        b"pHYs": b"\0",
        b"acTL": b"\0\0",
        b"fcTL": b"\0",
        b"fdAT": b"\0",
        b"iCCP": b"",
        b"zTXt": b"a\0\7x",
        b"iTXt": b"\xff\xfe\0\1",
        b"tEXt": b"\xff" * 9,
        b"tIME": b"",
        b"hIST": b"\0",
        b"sBIT": b"",
        b"bKGD": b"\0",
        b"sPLT": b"x",
        b"cICP": b"",
    }.items():
        yield png(f"a short {kind.decode()}", chunk(kind, data))
        after = saved(SCENE, "PNG")[:-12] + chunk(kind, data) + chunk(b"IEND", b"")
        yield Case(f"PNG with a short {kind.decode()} after its pixels", after, SCENE)
    whole = saved(SCENE, "PNG")
    at = whole.index(b"IDAT") + 400
    damaged = whole[:at] + bytes((whole[at] ^ 1,)) + whole[at + 1 :]
    yield Case("PNG whose pixels are damaged", damaged, says="damaged")
    yield Case("PNG without its end", whole[:-12], SCENE)
    yield Case("PNG with a broken end", whole[:-4] + bytes(4), SCENE)
    yield Case("PNG with rubbish after its pixels", whole[:-12] + b"\xff" * 99, SCENE)
    yield Case("PNG and a second one", whole * 2, SCENE)


def broken_segments() -> Iterator[Case]:
    for name, code, data in (
        ("JFIF", 0xE0, b"JFIF"),
        ("JFXX", 0xE0, b"JFXX\0"),
        ("EXIF", 0xE1, b"Exif"),
        ("XMP", 0xE1, b"http://ns.adobe.com/xap/1.0/\0"),
        ("profile", 0xE2, b"ICC_PROFILE\0"),
        ("MPF", 0xE2, b"MPF\0"),
        ("FlashPix", 0xE2, b"FPXR\0"),
        ("Photoshop", 0xED, b"Photoshop 3.0\x008BIM\4\4\xff"),
        ("resolution", 0xED, b"Photoshop 3.0\x008BIM\3\xed\0\0\0\0\0\2\0\0"),
        ("Adobe", 0xEE, b"Adobe"),
        ("Ducky", 0xEC, b"Ducky"),
        ("comment", 0xFE, b""),
        ("nothing", 0xE7, b""),
    ):
        yield jpeg(f"a short {name}", segment(code, data))
    second = segment(0xE2, b"MPF\0" + exif((0xB001, 4, 1, b"\2")))
    yield jpeg("MPF that promises a second image", second)
    parts = [segment(0xE2, b"ICC_PROFILE\0\1\2" + bytes(9))]
    yield jpeg("half of a profile", *parts)
    zero = UPRIGHT_JPEG[:2] + b"\xff\xe5\0\0" + UPRIGHT_JPEG[2:]
    yield Case("JPEG with a segment of length 0", zero, DECODED_JPEG)


def ends() -> Iterator[Case]:
    """A JPEG whose pixels are all there, and one whose are not."""
    kinds: dict[str, dict[str, object]] = {
        "baseline": {},
        "progressive": {"progressive": True},
        "optimised": {"optimize": True},
        "4:4:4": {"subsampling": 0},
        "with restarts": {"restart_marker_blocks": 3},
    }
    for name, options in kinds.items():
        for mode in ("RGB", "L", "CMYK"):
            whole = saved(Image.fromarray(SCENE).convert(mode), "JPEG", quality=90, **options)
            right = plainly(whole)
            base = f"JPEG {name} {mode}"
            yield Case(f"{base} without its end", whole[:-2], right)
            yield Case(f"{base} with half of its end", whole[:-1], right)
            yield Case(f"{base} with zeros for its end", whole[:-2] + bytes(50), right)
            yield Case(f"{base} with many zeros for its end", whole[:-2] + bytes(9000), right)
            yield Case(f"{base} with a line end for its end", whole[:-2] + b"\r\n", right)
            scan = whole.rindex(b"\xff\xda")
            half = whole[: (scan + len(whole)) // 2]
            yield Case(f"{base} cut in its last scan", half, says="truncated")
            yield Case(f"{base} cut, then zeros", half + bytes(90_000), says="truncated")
    whole = saved(SCENE, "JPEG", progressive=True)
    between = whole[: whole.rindex(b"\xff\xc4")]  # the tables of the last scan
    yield Case("JPEG progressive without its last scan", between, says="truncated")


def turns() -> Iterator[Case]:
    for orientation, stored in STORED.items():
        pixels = np.ascontiguousarray(stored(SCENE))
        data = saved(pixels, "PNG", exif=turned(orientation))
        yield Case(f"PNG orientation {orientation}", data, SCENE)
        data = saved(pixels, "WEBP", lossless=True, exif=turned(orientation))
        yield Case(f"WebP orientation {orientation}", data, SCENE)
        data = saved(pixels, "TIFF", tiffinfo={0x0112: orientation})
        yield Case(f"TIFF orientation {orientation}", data, SCENE)
        data = saved(
            pixels, "JPEG", quality=98, subsampling=0, exif=b"Exif\0\0" + turned(orientation, ">")
        )
        yield Case(f"JPEG orientation {orientation}", data, SCENE, 12)
        data = saved(pixels, "AVIF", quality=100, subsampling="4:4:4", exif=turned(orientation))
        yield Case(f"AVIF orientation {orientation}", data, SCENE, 6)
    right = np.ascontiguousarray(np.rot90(SCENE, -1))
    after = saved(SCENE, "PNG")[:-12] + chunk(b"eXIf", turned(6)) + chunk(b"IEND", b"")
    yield Case("PNG with EXIF after its pixels", after, right)
    wide = exif((0x0112, 4, 1, struct.pack("<I", 6)))
    yield png("an orientation of 32 bits", chunk(b"eXIf", wide), right=right)
    late = exif(*[(9, 3, 1, b"")] * 300, (0x0112, 3, 1, struct.pack("<H", 6)))
    yield png("an orientation after 300 tags", chunk(b"eXIf", late), right=right)


def not_turned() -> Iterator[Case]:
    yield jpeg("XMP that turns", segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP))
    yield png("XMP that turns", chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP))
    yield Case("WebP with XMP that turns", saved(SCENE, "WEBP", lossless=True, xmp=XMP), SCENE)
    tags = {258: (3, [8] * 3), 262: (3, [2]), 277: (3, [3]), 700: (1, list(XMP))}
    data = tiff([b"".join(rows(SCENE.astype(int), 8))], 56, 40, tags)
    yield Case("TIFF with XMP that turns", data, SCENE)
    comment = b"!\xfe" + b"\x10" + bytes(16) + b"\0"
    indices = np.ones((24, 24), np.int64)
    blue = np.full((24, 24, 3), (0, 0, 255), np.uint8)
    yield Case("GIF with comments", gif(indices, before=comment * 500), blue)
    junk = b"!\xff\x0bNETSCAPE2.0" + b"\x01x\0" + b"!\xff\0" + b"!\1\0"
    yield Case("GIF with odd extensions", gif(indices, before=junk), blue)


def cases() -> Iterator[Case]:
    """All of them."""
    for group in (exif_junk, large, broken_chunks, broken_segments, ends, turns, not_turned):
        yield from group()
