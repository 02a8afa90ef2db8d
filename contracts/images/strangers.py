"""Names for files that come instead of an image in a supported format.

In: the bytes of a file that has none of the supported formats. Out: words that tell a person what
the file is and what to do, whether the file was sent or lies in a folder; never bytes in
hexadecimal.
"""

import re

from contracts.images import bmff

JPEG = "convert it to JPEG or PNG"
# Kinds of files by their first bytes. The sources are the formats' own specifications.
IMAGES = {
    b"\0\0\0\x0cJXL \r\n\x87\n": "a JPEG XL image",
    b"\xff\n": "a JPEG XL image",
    b"\0\0\0\x0cjP  \r\n\x87\n": "a JPEG 2000 image",
    b"\xff\x4f\xff\x51": "a JPEG 2000 image",
    b"II\xbc": "a JPEG XR image",
    b"8BPS": "a Photoshop document",
    b"8BPB": "a Photoshop document",
    b"gimp xcf": "a GIMP document",
    b"\0\0\1\0": "a Windows icon",
    b"\0\0\2\0": "a Windows cursor or a TGA image",
    b"icns": "an Apple icon",
    b"qoif": "a QOI image",
    b"DDS ": "a DDS texture",
    b"v/1\1": "an OpenEXR image",
    b"#?RADIANCE": "a Radiance HDR image",
    b"farbfeld": "a farbfeld image",
    b"BPG\xfb": "a BPG image",
    b"FLIF": "a FLIF image",
    b"SIMPLE  =": "a FITS image",
    b"FUJIFILMCCD-RAW": "a camera's raw file (Fujifilm)",
    b"IIRO": "a camera's raw file (Olympus)",
    b"IIRS": "a camera's raw file (Olympus)",
    b"IIU\0": "a camera's raw file (Panasonic)",
}
OTHERS = {
    b"%PDF": "a PDF document; make images of its pages",
    b"%!PS": "a PostScript document; make images of its pages",
    b"\x1f\x8b": "gzip-encoded; decode it first",
    b"\x28\xb5\x2f\xfd": "zstd-encoded; decode it first",
    b"\xfd7zXZ\0": "xz-encoded; decode it first",
    b"BZh": "bzip2-encoded; decode it first",
    b"\x78\x01": "zlib-encoded; decode it first",
    b"\x78\x9c": "zlib-encoded; decode it first",
    b"\x78\xda": "zlib-encoded; decode it first",
    b"PK\3\4": "a zip archive or an office document; take the images out of it",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; take the images out of it",
    b"Rar!": "a RAR archive; take the images out of it",
    b"\x1aE\xdf\xa3": "a Matroska or WebM video; save a frame of it as an image",
    b"OggS": "an Ogg file, not an image",
    b"ID3": "an MP3 file, not an image",
    b"\x93NUMPY": "a NumPy array; encode it as PNG",
    b"\x7fELF": "a program, not an image",
    b"MZ": "a Windows program, not an image",
    b"\xff\xfe": "text in UTF-16, not an image",
    b"\xfe\xff": "text in UTF-16, not an image",
    b"\x89PNG\n": "a PNG whose line ends were changed on the way; transfer it as binary",
    b"\x89PNG\r\r\n": "a PNG whose line ends were changed on the way; transfer it as binary",
    b"\xc2\x89PNG": "a PNG whose bytes were encoded as UTF-8 on the way; transfer it as binary",
    b"\xef\xbf\xbdPNG": "a PNG whose bytes were read as text on the way; transfer it as binary",
    b"\xc3\xbf\xc3\x98": "a JPEG whose bytes were encoded as UTF-8; transfer it as binary",
    b"\xef\xbf\xbd\xef\xbf\xbd": "binary data that were read as text; transfer them as binary",
}
# AVI, WAV and others lie in the same container as WebP.
RIFF = {
    b"AVI ": "an AVI video; save a frame of it as an image",
    b"WAVE": "a WAV file, not an image",
}
TEXT = (
    (re.compile(rb"data:", re.I), "a data: URL; decode its base64 first"),
    (re.compile(rb"b['\"]"), "bytes as Python prints them, not the bytes themselves"),
    (re.compile(rb"<svg|<\?xml.{0,300}?<svg", re.I | re.S), f"an SVG drawing; {JPEG}"),
    (re.compile(rb"<(!doctype html|html|head|body)", re.I), "a web page (HTML), not an image"),
    (re.compile(rb"<(\?xml|\w)"), "XML, not an image"),
    (re.compile(rb"--[^\r\n]{1,200}\r?\nContent-Disposition", re.I),
     "a form whose Content-Type is not multipart/form-data with its boundary"),
    (re.compile(rb"[{\[]\s*[\"{\[\d}\]]"), "JSON, not an image"),
    (re.compile(rb"P[1-7Ff][\s#]"), f"a portable pixmap (PNM); {JPEG}"),
    (re.compile(rb"(https?|ftp|file|s3|gs)://\S"), "an address, not the bytes that lie there"),
    (re.compile(rb"/\* XPM|#define \w+_width"), f"an X pixmap; {JPEG}"),
    (re.compile(rb"[0-9a-f]{64}|(?:[0-9a-f]{2}\s){16}", re.I),
     "hexadecimal digits, not the bytes that they stand for"),
)  # fmt: skip
BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{16,}={0,2}")
# How JPEG, PNG, GIF, WebP, TIFF, BMP, AVIF and HEIC begin in base64.
BASE64_IMAGES = (
    *(b"/9j/", b"_9j_", b"iVBORw0KGgo", b"R0lGOD", b"UklGR", b"SUkq", b"TU0AK", b"Qk", b"AAAA"),
)
LOOKED_AT = 1024


def name(data: bytes, formats: str) -> str:
    """What the bytes are, as a sentence; `formats` lists those that are read."""
    if not data:
        return "the image has 0 bytes"
    found = _known(data)
    if found:
        return f"the bytes are {found} ({formats} are read)"
    return f"the bytes are no image of a format that is known; {formats} are read"


def _known(data: bytes) -> str:
    for begin, image in IMAGES.items():
        if data.startswith(begin):
            return f"{image}; {JPEG}"
    for begin, other in OTHERS.items():
        if data.startswith(begin):
            return other
    if data.startswith(b"RIFF") and data[8:12] in RIFF:
        return RIFF[data[8:12]]
    if brands := bmff.brands(data):
        return _boxed(brands)
    if data[128:132] == b"DICM":
        return "a DICOM file; export its image as PNG"
    return _text(data)


def _boxed(brands: set[bytes]) -> str:
    if brands & bmff.HEIC_BRANDS:
        return (
            "a HEIC image, as iPhones save them; set the camera to Most Compatible (JPEG), or let "
            "the server read HEIC: set it up with `make heic`, which installs pillow-heif"
        )
    if b"crx " in brands:
        return f"a camera's raw file (Canon's CR3); {JPEG}"
    if brands & {b"mif1", b"msf1"}:
        return f"a HEIF image that is neither HEIC nor AVIF; {JPEG}"
    return "a video or audio file (MP4, MOV); save a frame of it as an image"


def _text(data: bytes) -> str:
    """The kind of a text, or of a file that repeats one byte; "" for everything else."""
    start = data[:LOOKED_AT].removeprefix(b"\xef\xbb\xbf").lstrip()
    for pattern, what in TEXT:
        if pattern.match(start):
            return what
    if not start.strip(b"\0"):
        return "nothing but zeros or blanks; the file was not written to its end"
    lines = b"".join(start.split())
    if BASE64.fullmatch(lines) and (lines.startswith(BASE64_IMAGES) or len(lines) >= 64):
        return "base64 text; decode it first"
    return "text, not an image" if _is_text(start[:256]) else ""


def _is_text(start: bytes) -> bool:
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 4:  # else a letter is cut at the end
            return False
    return not any(byte < 32 and byte not in b"\t\n\r\f" for byte in start)
