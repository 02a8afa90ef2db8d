"""What people send instead of an image that is read, and how it is called in the refusal."""

import base64
import gzip
import json
import zlib
from collections.abc import Iterator

from tests.contracts.images.corpus import Case
from tests.contracts.images.corpus.writers import saved, scene, segment

JPEG = saved(scene(), "JPEG")
PNG = saved(scene(), "PNG")
BOX = b"\0\0\0\x1cftyp%s\0\0\0\0mif1%s" + bytes(200)


SENT = (
    ("HEIC.*set", BOX % (b"heic", b"heic")),
    ("HEIC.*set", BOX % (b"mif1", b"heix")),
    ("HEIF", BOX % (b"mif1", b"unci")),
    ("CR3", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(200)),
    ("video", b"\0\0\0\x18ftypisom\0\0\2\0isomavc1" + bytes(200)),
    ("video", b"\0\0\0\x14ftypqt  \0\0\2\0qt  " + bytes(200)),
    ("JPEG XL", b"\xff\x0a\xfa\x7f\x01" + bytes(30)),
    ("JPEG XL", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(30)),
    ("JPEG 2000", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(30)),
    ("JPEG 2000", b"\xff\x4f\xff\x51" + bytes(30)),
    ("JPEG XR", b"II\xbc\1" + bytes(30)),
    ("PDF", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"),
    ("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n"),
    ("Photoshop", b"8BPS\0\1" + bytes(30)),
    ("icon", b"\0\0\1\0\1\0\x20\x20" + bytes(30)),
    ("QOI", b"qoif" + bytes(30)),
    ("PNM", b"P6\n4 4\n255\n" + bytes(48)),
    ("PNM", b"P3\n# by hand\n1 1 255 0 0 0\n"),
    ("OpenEXR", b"v/1\1\2\0\0\0"),
    ("Radiance", b"#?RADIANCE\n"),
    ("SVG", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    ("SVG", b"<?xml version='1.0'?>\n<!-- a -->\n<svg/>"),
    ("XML", b"<?xml version='1.0'?><error/>"),
    ("HTML", b"<!DOCTYPE html><html><body>404</body></html>"),
    ("HTML", b"\n\n  <HTML><head>"),
    ("HTML", b"\xef\xbb\xbf<html>"),
    ("JSON", json.dumps({"image": base64.b64encode(JPEG).decode()}).encode()),
    ("JSON", json.dumps([[0, 1], [2, 3]]).encode()),
    ("base64", base64.b64encode(JPEG)),
    ("base64", base64.b64encode(PNG)),
    ("base64", base64.encodebytes(JPEG)),
    ("base64", base64.urlsafe_b64encode(JPEG)),
    ("base64", base64.b64encode(bytes(range(256)))),
    ("base64", b"data:image/jpeg;base64," + base64.b64encode(JPEG)),
    ("Python", repr(JPEG).encode()),
    ("hexadecimal", JPEG.hex().encode()),
    ("gzip", gzip.compress(JPEG)),
    ("zlib", zlib.compress(JPEG)),
    ("zstd", b"\x28\xb5\x2f\xfd\x04\x00" + bytes(30)),
    ("zip", b"PK\3\4" + bytes(30)),
    ("address", b"https://example.org/cat.jpg\n"),
    ("address", b"s3://bucket/cat.jpg"),
    ("text", b"cat.jpg"),
    ("text", "Käfer und Möwen".encode()),
    ("UTF-16", "cat.jpg".encode("utf-16")),
    ("text", JPEG.decode("utf-8", "replace").encode()),
    ("UTF-8", JPEG.decode("latin-1").encode()),
    ("UTF-8", PNG.decode("latin-1").encode()),
    ("text", PNG.decode("utf-8", "replace").encode()),
    ("line ends", PNG.replace(b"\r\n", b"\n")),
    ("multipart", b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\n' + JPEG),
    ("NumPy", b"\x93NUMPY\1\0" + bytes(30)),
    ("WAV", b"RIFF\x24\0\0\0WAVEfmt "),
    ("AVI", b"RIFF\x24\0\0\0AVI LIST"),
    ("Matroska", b"\x1aE\xdf\xa3" + bytes(30)),
    ("DICOM", bytes(128) + b"DICM" + bytes(30)),
    ("Fujifilm", b"FUJIFILMCCD-RAW 0201"),
    ("zeros", bytes(5000)),
    ("blanks", b"  \n\n \t"),
    ("0 bytes", b""),
    ("no image", b"\x80\x04\x95cos\nsystem\n" + bytes(range(256))),
)


def named() -> Iterator[Case]:
    """Each is called by its name; 415 over HTTP."""
    for number, (says, data) in enumerate(SENT):
        yield Case(f"{says} {number}: {data[:12]!r}", data, says=says)


def kin() -> Iterator[Case]:
    """Kinds of the formats that are read which are not; 422 over HTTP."""
    frame = b"\x0c\0\x20\0\x20\1\1\x11\0"
    scan = segment(0xDA, b"\1\1\0\0\x3f\0") + bytes(9) + b"\xff\xd9"
    yield Case("JPEG of 12 bits", b"\xff\xd8" + segment(0xC1, frame) + scan, says="12-bit JPEG")
    eight = b"\x08" + frame[1:]
    lossless = b"\xff\xd8" + segment(0xC3, eight) + scan
    yield Case("JPEG lossless", lossless, says="lossless JPEG")
    hierarchical = b"\xff\xd8" + segment(0xC5, eight) + scan
    yield Case("JPEG hierarchical", hierarchical, says="hierarchical JPEG")
    ls = b"\xff\xd8\xff\xf7" + segment(0xF7, eight)[2:] + scan
    yield Case("JPEG-LS", ls, says="JPEG-LS")
    later = b"\xff\xd8" + segment(0xC0, b"\x08\0\0\0\x20\1\1\x11\0") + scan
    yield Case("JPEG of a later height", later, says="height")
    two = b"\xff\xd8" + segment(0xC0, b"\x08\0\x20\0\x20\2\1\x11\0\2\x11\0") + scan
    yield Case("JPEG of two colours", two, says="2-layer|2 colours")
    apple = PNG[:8] + b"\0\0\0\4CgBI\x50\0\x20\2\x2b\xd5\xb3\x7f" + PNG[8:]
    yield Case("PNG by Apple", apple, says="CgBI")
    unknown = PNG[:33] + b"\0\0\0\0JDAT\0\0\0\0" + PNG[33:]
    yield Case("PNG with a strange critical chunk", unknown, says="JDAT")
    raw = b"II*\0\x10\0\0\0CR\2\0" + bytes(40)
    yield Case("Canon's CR2", raw, says="CR2")


def cases() -> Iterator[Case]:
    """All of them."""
    yield from named()
    yield from kin()
