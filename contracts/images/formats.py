"""Which image formats are read, and how they are told apart.

In: the bytes of a file. Out: Pillow's name of the format, or an error that names what the bytes are
in words for people. The bytes decide; a suffix only says which files of a folder are looked at.
"""

from importlib.util import find_spec

from contracts.images import bmff
from contracts.images.errors import UnsupportedTypeError
from contracts.images.strangers import name

HEIC_IS_READ = find_spec("pillow_heif") is not None
NAMES = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF" + " and HEIC" * HEIC_IS_READ
HEIC_SUFFIXES = frozenset({".heic", ".heif", ".hif", ".heics", ".heifs"})
# The suffixes, in lower case, that cameras, browsers and image libraries give to these formats.
SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".mpo"),
        *(".png", ".apng", ".webp", ".gif", ".avif", ".avifs"),
        *(".bmp", ".dib", ".tif", ".tiff"),
        *(HEIC_SUFFIXES if HEIC_IS_READ else ()),
    }
)

BEGINNINGS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    *((begin, "GIF") for begin in (b"GIF87a", b"GIF89a")),
    *((begin, "TIFF") for begin in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    (b"BM", "BMP"),
)


def sniff(data: bytes) -> str:
    """Pillow's name of the format that `data` begins like; raises `UnsupportedTypeError`."""
    for begin, kind in BEGINNINGS:
        if data.startswith(begin):
            return kind
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    brands = bmff.brands(data)
    if brands & bmff.AVIF_BRANDS:
        return "AVIF"
    if brands & bmff.HEIC_BRANDS and HEIC_IS_READ:
        return "HEIF"
    raise UnsupportedTypeError(name(data, NAMES))
