"""Odd, broken and hostile bodies for the gateway, each with the statuses that may answer it.

In: nothing. Out: `corpus()`, the same few hundred cases every time, all made here.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from contracts.images.formats import HEIC_IS_READ
from tests.server.serving.images.bombs.png import chunk

RAW = "application/octet-stream"
FORM = "multipart/form-data; boundary=b"
SAMPLE = Image.fromarray(np.random.default_rng(7).integers(0, 256, (48, 64, 3), np.uint8))
KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
GOOD, REFUSED, BROKEN, NO_IMAGE, NOTHING = {200}, {413}, {422}, {415}, {400}


@dataclass(frozen=True)
class Case:
    """One request body; `statuses` are those that the documentation promises."""

    name: str
    body: bytes
    statuses: set[int]
    content_type: str = RAW


def corpus() -> list[Case]:
    """All cases; names are unique."""
    cases = [*odd(), *bombs(), *laborious(), *truncated(), *damaged(), *strangers(), *bodies()]
    assert len({case.name for case in cases}) == len(cases)
    return cases


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def odd() -> Iterator[Case]:
    """Unusual, but images."""
    grey, alpha = SAMPLE.convert("L"), SAMPLE.convert("RGBA")
    alpha.putalpha(grey)
    modes = {
        "JPEG": ("L", "RGB", "CMYK"),
        "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
        "WEBP": ("RGB", "RGBA"),
        "GIF": ("1", "L", "P"),
        "BMP": ("1", "L", "P", "RGB", "RGBA"),
        "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16"),
    }
    for kind, names in modes.items():
        for mode in names:
            source = alpha if mode in {"LA", "RGBA"} else grey if mode == "I;16" else SAMPLE
            yield Case(f"{kind} {mode}", encode(source.convert(mode), kind), GOOD)
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        for orientation in (2, 3, 4, 5, 6, 7, 8, 9, 65535):
            exif = Image.Exif()
            exif[0x0112] = orientation
            yield Case(f"{kind} orientation {orientation}", encode(SAMPLE, kind, exif=exif), GOOD)
    for size in ((1, 1), (1, 5000), (5000, 1)):
        for kind in KINDS:
            yield Case(f"{kind} {size}", encode(SAMPLE.resize(size), kind), GOOD)
    for compression in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg", "tiff_adobe_deflate"):
        data = encode(SAMPLE, "TIFF", compression=compression)
        yield Case(f"TIFF {compression}", data, GOOD)
    yield Case("TIFF group 4", encode(SAMPLE.convert("1"), "TIFF", compression="group4"), GOOD)
    yield Case("TIFF big", encode(SAMPLE, "TIFF", big_tiff=True), GOOD)
    yield Case("JPEG progressive", encode(SAMPLE, "JPEG", progressive=True), GOOD)
    cmyk = encode(SAMPLE.convert("CMYK"), "JPEG", progressive=True)
    yield Case("JPEG progressive CMYK", cmyk, GOOD)
    yield Case("JPEG 4:1:1", encode(SAMPLE, "JPEG", subsampling="4:1:1"), GOOD)
    long = segment(b"\xff\xe1", b"Exif\0\0" + bytes(900))
    yield Case("JPEG with EXIF in 3 segments", jpeg(long * 3), GOOD)
    profile = segment(b"\xff\xe2", b"ICC_PROFILE\0" + bytes(900))
    yield Case("JPEG with a profile in 255 segments", jpeg(profile * 255), GOOD)
    yield Case("BMP of runs", bmp_of_runs(4, 2, b"\4\7\0\0\4\x09\0\1"), GOOD)
    small = tiff({256: 10, 257: 10, 322: 256, 323: 256}, bytes(2**16))
    yield Case("TIFF of 10² in a tile of 256²", small, GOOD)
    yield Case("JPEG then rubbish", encode(SAMPLE, "JPEG") + bytes(range(256)) * 400, GOOD)
    yield Case("JPEG then 200 JPEGs", encode(SAMPLE, "JPEG") * 200, GOOD)
    pages = [SAMPLE.rotate(90 * turn) for turn in range(3)]
    for kind in ("GIF", "PNG", "WEBP", "TIFF", "MPO"):
        data = encode(pages[0], kind, save_all=True, append_images=pages[1:])
        yield Case(f"{kind} of 3 frames", data, GOOD)
    yield Case("PNG 16-bit RGB", png(8, 8, 16, 2, bytes(8 * (1 + 6 * 8))), GOOD)
    yield Case("PNG interlaced", png(1, 1, 8, 2, bytes(4), interlace=1), GOOD)
    yield Case("PNG declared as text/html in a form", form(encode(SAMPLE, "PNG")), GOOD, FORM)
    for kind in KINDS:
        yield Case(f"{kind} as image/x", encode(SAMPLE, kind), GOOD, "image/x")


def bombs() -> Iterator[Case]:
    """Small files that claim, or would become, something huge."""
    yield Case("PNG 13000²", png(13_000, 13_000, 1, 0, bytes(13_000 * 1626)), REFUSED)
    for side in (8_000, 65_535, 2**31 - 1):
        yield Case(f"PNG claims {side}²", png(side, side, 8, 2, b""), REFUSED)
    yield Case("GIF of 65000 frames", gif(64, 64, 65_000), GOOD)
    yield Case("GIF claims 65535²", gif(65_535, 65_535, 1), REFUSED)
    claims = bytearray(encode(SAMPLE, "JPEG"))
    at = claims.index(b"\xff\xc0") + 5
    claims[at : at + 4] = b"\xff\xff" * 2
    yield Case("JPEG claims 65535²", bytes(claims), REFUSED)
    bmp = bytearray(encode(SAMPLE, "BMP"))
    for side in (60_000, 2**31 - 1):
        bmp[18:26] = struct.pack("<ii", side, side)
        yield Case(f"BMP claims {side}²", bytes(bmp), REFUSED)
    for tags in ({256: 2**20, 257: 2**20}, {256: 65_535, 257: 65_535}, {256: 2**32 - 1, 257: 2}):
        yield Case(f"TIFF claims {tags}", tiff(tags), REFUSED)
    tiled = {256: 16, 257: 16, 322: 2**15, 323: 2**14, 324: 8, 325: 100}
    yield Case("TIFF with a tile of gigabytes", tiff(tiled), REFUSED | BROKEN)
    webp = b"VP8X" + struct.pack("<IB3x", 10, 0) + (16_383).to_bytes(3, "little") * 2
    yield Case("WebP claims 16384²", riff(webp), REFUSED | BROKEN)
    squeezed = zlib.compress(bytes(64 * 2**20), 9)
    text = chunk(b"zTXt", b"a\0\0" + squeezed)
    yield Case("PNG with 64 MiB of text", png(1, 1, 8, 2, bytes(4), before=text), GOOD | BROKEN)
    yield Case("PNG of much text", png(1, 1, 8, 2, bytes(4), before=text * 20), GOOD | BROKEN)
    profile = chunk(b"iCCP", b"a\0\0" + squeezed)
    yield Case("PNG with a huge profile", png(1, 1, 8, 2, bytes(4), before=profile), GOOD | BROKEN)
    yield Case("PNG with 64 MiB of pixels in 1", png(1, 1, 8, 2, bytes(64 * 2**20)), GOOD | BROKEN)
    for width, height in ((0, 0), (0, 9), (9, 0)):
        yield Case(f"PNG {width}×{height}", png(width, height, 8, 2, b""), BROKEN)
    yield Case("TIFF whose directory is itself", b"II*\0" + struct.pack("<IH", 8, 65_535), BROKEN)
    huge_count = {256: 8, 257: 8, 273: 2**31}
    yield Case("TIFF with a strip beyond the end", tiff(huge_count), BROKEN)


def laborious() -> Iterator[Case]:
    """Small files whose work or memory is far more than their bytes and pixels tell."""
    progressive = encode(SAMPLE, "JPEG", progressive=True)
    start = progressive.index(b"\xff\xda")
    scan = progressive[start : progressive.index(b"\xff\xc4", start)]
    yield Case("JPEG of 5000 scans", progressive[:-2] + scan * 5000, BROKEN)
    hidden = progressive[:-2] + b"\xff\x01" + scan * 300 + b"\xff\xd9"
    yield Case("JPEG of 300 scans after FF 01", hidden, BROKEN)
    exif = segment(b"\xff\xe1", b"Exif\0\0MM\0*")
    yield Case("JPEG of 100000 pieces of EXIF", jpeg(exif * 100_000), BROKEN)
    yield Case("JPEG of such after an end", jpeg(b"\xff\xd9" + exif * 100_000), BROKEN)
    yield Case("JPEG of 100000 segments", jpeg(segment(b"\xff\xe5", b"") * 100_000), BROKEN)
    frame = segment(b"\xff\xc0", b"\x08\0\x08\0\x08\x03" + b"\1\x11\0" * 21_000)
    yield Case("JPEG of 40 frames of 21000 channels", jpeg(frame * 40), BROKEN)
    deflated = {256: 128, 257: 128, 259: 8, 322: 1, 323: 10**6}
    zeros = zlib.compress(bytes(10**6), 9)
    wide = {256: 3 * 10**6, 257: 16, 259: 8, 322: 16, 323: 3 * 10**6}
    yield Case("TIFF of 187500 tiles of 48 megapixels", tiff(wide, zeros, 187_500), REFUSED)
    yield Case("TIFF of 128 tiles of a megabyte", tiff(deflated, zeros, 128), REFUSED)
    raw = {256: 128, 257: 128, 278: 64}
    yield Case("TIFF of 2 strips 50000 times", tiff(raw, bytes(2**13), 50_000), GOOD | BROKEN)
    endless = tiff({256: 8, 257: 1, 323: 7}, bytes(8)).replace(
        struct.pack("<HHII", 323, 4, 1, 7), struct.pack("<HHIf", 323, 11, 1, float("inf"))
    )
    yield Case("TIFF with an infinite tile", endless, BROKEN)
    mebibyte = b"\0\0" + zlib.compress(bytes(2**20), 9)
    for kind in (b"iCCP", b"zTXt"):
        many = png(1, 1, 8, 2, bytes(4), before=chunk(kind, mebibyte) * 300)
        yield Case(f"PNG of 300 {kind.decode()} of a MiB", many, GOOD)  # nothing is inflated
    for kind in (b"prVt", b"gAMA", b"IDAT"):
        tiny = png(1, 1, 8, 2, bytes(4), before=chunk(kind, b"") * 20_000)
        yield Case(f"PNG of 20000 {kind.decode()}", tiny, BROKEN)
    for filler in (b"\xff", b"\xff\xd9", b"\xff\xd0", b"\xff\0", b"\0"):
        yield Case(
            f"JPEG after 100000 {filler.hex()}",
            jpeg(segment(b"\xff\xe5", b"") + filler * 100_000),
            BROKEN,
        )
        yield Case(f"JPEG of nothing but {filler.hex()}", b"\xff\xd8\xff" + filler * 9000, BROKEN)
    palette = struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 1, 1, 1, 8, 0, 4, 0, 0, 65_536, 0)
    yield Case("BMP of 65536 colours", b"BM" + palette + bytes(15_000), BROKEN)
    yield Case("BMP of 5000 short runs", bmp_of_runs(5000, 5000, b"\1\7\0\0" * 5000), REFUSED)
    yield Case("BMP of 4 million bytes of runs", bmp_of_runs(500, 500, b"\1\7" * 2**21), REFUSED)


def truncated() -> Iterator[Case]:
    """The beginnings of images."""
    for kind in KINDS:
        data = encode(SAMPLE, kind)
        for part in (0.02, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9):
            keep = max(14, int(part * len(data)))
            yield Case(f"{kind} cut at {part:.0%}", data[:keep], BROKEN)
        yield Case(f"{kind} of 3 bytes", data[:3], BROKEN | NO_IMAGE)


def damaged() -> Iterator[Case]:
    """Images with a few bytes changed: some still are images, some claim to be large."""
    random = np.random.default_rng(11)
    for kind in KINDS:
        whole = encode(SAMPLE.resize((24, 16)), kind)
        for number in range(10):
            data = bytearray(whole)
            for at in random.integers(4, len(data), 1 + number):
                data[at] = random.integers(256)
            name = f"{kind} damaged {number}"
            yield Case(name, bytes(data), GOOD | REFUSED | BROKEN | NO_IMAGE)
        yield Case(f"{kind} of zeros", whole[:12] + bytes(500), BROKEN)
        yield Case(f"{kind} of ones", whole[:12] + b"\xff" * 500, BROKEN | REFUSED)


def strangers() -> Iterator[Case]:
    """What is no image, or of a kind that is not read."""
    beginnings = {
        "text": b"hello",
        "HTML": b"<!doctype html><script>alert(1)</script>",
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "XML bomb": b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaa">]>',
        "PDF": b"%PDF-1.7\n",
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "ZIP": b"PK\x03\x04",
        "gzip": b"\x1f\x8b\x08",
        "ELF": b"\x7fELF\x02\x01\x01",
        "Windows program": b"MZ\x90\0",
        "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0",
        "MP4": b"\0\0\0\x18ftypisom\0\0\0\0",
        "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n",
        "JPEG XL": b"\xff\x0a",
        "PSD": b"8BPS\0\x01",
        "ICO": b"\0\0\x01\0\x01\0",
        "PPM": b"P6 9 9 255\n",
        "TGA": b"\0\0\x02\0\0\0\0\0\0\0\0\0",
        "FITS": b"SIMPLE  =                    T",
        "DDS": b"DDS |\0\0\0",
        "WAV": b"RIFF\x24\0\0\0WAVEfmt ",
        "JSON": b'{"image": "aGVsbG8="}',
        "base64": b"/9j/4AAQSkZJRgABAQAAAQABAAD",
        "pickle": b"\x80\x04\x95cos\nsystem\n",
        "zeros": b"\0",
        "ones": b"\xff",
        "almost PNG": b"\x89PNG\n\x1a\n",
        "PNG in UTF-16": "\x89PNG\r\n\x1a\n".encode("utf-16"),
    }
    for name, beginning in beginnings.items():
        refusal = BROKEN if name == "HEIC" and HEIC_IS_READ else NO_IMAGE
        yield Case(name, beginning + bytes(64), refusal)
    for types in ("text/plain", "video/mp4", "multipart/mixed", "x", "a/b/c"):
        yield Case(f"a PNG as {types}", encode(SAMPLE, "PNG"), NO_IMAGE, types)
    # JSON is read: this is none.
    yield Case("a PNG as application/json", encode(SAMPLE, "PNG"), NOTHING, "application/json")


def bodies() -> Iterator[Case]:
    """Bodies without an image, and broken forms."""
    yield Case("no body", b"", NOTHING)
    for name, body in {
        "empty": b"",
        "rubbish": b"rubbish",
        "only the end": b"--b--\r\n",
        "no end": form(b"x")[:-7],
        "no head": b"--b\r\n\r\nx\r\n--b--\r\n",
        "broken head": b"--b\r\nContent-Disposition\r\n\r\nx\r\n--b--\r\n",
        "zero bytes": form(b""),
        "other name": form(encode(SAMPLE, "PNG"), "file"),
        "twice": form(b"x")[:-7] + form(b"x"),
        "other boundary": form(b"x").replace(b"--b", b"--c"),
        "2000 fields": form(b"x", "y")[:-7] * 2000 + b"--b--\r\n",
        "long head": b"--b\r\nContent-Disposition: " + b"x" * 100_000 + b"\r\n\r\n\r\n--b--\r\n",
        "nul in the name": form(b"x", "im\0age"),
    }.items():
        yield Case(f"form: {name}", body, NOTHING, FORM)
    yield Case("form without a boundary", form(b"x"), NOTHING, "multipart/form-data")
    yield Case("form with text", form(b"hello"), NO_IMAGE, FORM)
    yield Case("form with half a PNG", form(encode(SAMPLE, "PNG")[:900]), BROKEN, FORM)
    path = form(encode(SAMPLE, "PNG")).replace(b"a.png", b"../../etc/passwd")
    yield Case("form with a path for a name", path, GOOD, FORM)


def form(data: bytes, name: str = "image") -> bytes:
    """A form of one field, with boundary b."""
    head = f'Content-Disposition: form-data; name="{name}"; filename="a.png"'
    return f"--b\r\n{head}\r\nContent-Type: text/html\r\n\r\n".encode() + data + b"\r\n--b--\r\n"


def png(
    width: int,
    height: int,
    bits: int,
    colour: int,
    pixels: bytes,
    *,
    before: bytes = b"",
    interlace: int = 0,
) -> bytes:
    """A PNG with any header; `pixels` with the filter bytes; `before` goes before them."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            before,
            chunk(b"IDAT", zlib.compress(pixels, 9)),
            chunk(b"IEND", b""),
        )
    )


def segment(marker: bytes, data: bytes) -> bytes:
    """One segment of a JPEG."""
    return marker + struct.pack(">H", 2 + len(data)) + data


def jpeg(segments: bytes) -> bytes:
    """A JPEG with any segments after its start."""
    whole = encode(SAMPLE, "JPEG")
    return whole[:2] + segments + whole[2:]


def gif(width: int, height: int, frames: int) -> bytes:
    """A GIF of black frames of 1 × 1 on a canvas of width × height."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    frame = b"!\xf9\x04\0\1\0\0\0" + b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0)
    return head + (frame + b"\x02\x02\x44\x01\x00") * frames + b";"


def bmp_of_runs(width: int, height: int, runs: bytes) -> bytes:
    """A run-length coded BMP (BI_RLE8) of greys."""
    greys = b"".join(bytes((grey, grey, grey, 0)) for grey in range(256))
    start = 14 + 40 + len(greys)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + info + greys + runs


def riff(chunks: bytes) -> bytes:
    """A WebP with any chunks."""
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def tiff(tags: dict[int, int], pixels: bytes = b"", pieces: int = 1) -> bytes:
    """A grey TIFF of 8 bits with any tags (LONG), whose strips or tiles are all the same bytes."""
    offsets, counts = (324, 325) if 322 in tags else (273, 279)
    every = {258: 8, 259: 1, 262: 1, 277: 1, offsets: 8, counts: 100}
    every |= {278: 1} if offsets == 273 else {}
    every |= tags
    end = 8 + 2 + 12 * len(every) + 4
    if pieces > 1:
        every |= {offsets: end, counts: end + 4 * pieces}
    elif pixels:
        every |= {offsets: end, counts: len(pixels)}
    entries = b"".join(
        struct.pack("<HHII", tag, 4, pieces if tag in {offsets, counts} else 1, every[tag])
        for tag in sorted(every)
    )
    head = b"II*\0" + struct.pack("<IH", 8, len(every)) + entries + bytes(4)
    if pieces == 1:
        return head + pixels
    where = struct.pack("<I", end + 8 * pieces) * pieces
    return head + where + struct.pack("<I", len(pixels)) * pieces + pixels
