"""Which image formats are read, and how they are told apart.

In: the bytes of a file, or its name. Out: Pillow's name of the format. The bytes decide; a suffix
only says which files of a folder are looked at.
"""

from contracts.images.errors import UnsupportedTypeError

NAMES = "JPEG, PNG, WebP, GIF, BMP or TIFF"
# In lower case: what cameras, browsers and image libraries give to files of these formats.
SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo"),
        *(".png", ".apng", ".webp", ".gif"),
        *(".bmp", ".dib", ".tif", ".tiff"),
    }
)


def sniff(data: bytes) -> str:
    """Pillow's name of the format that `data` begins like; raises `UnsupportedTypeError`."""
    head = data[:12]
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if head.startswith(b"BM"):
        return "BMP"
    raise UnsupportedTypeError(f"the bytes begin like no {NAMES} image: {head.hex(' ')}")
