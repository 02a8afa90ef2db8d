"""What Pillow opens and the gateway does not: refused by its first bytes, whatever it holds."""

import struct
from collections.abc import Iterator

from PIL import Image

from tests.server.serving.images.bombs.parts import Generator, encoded, side_of
from tests.server.serving.images.bombs.png import png


def strangers(pixels: int) -> Iterator[tuple[str, Generator]]:
    side = side_of(pixels)
    short = min(side, 65_535)

    def icon() -> bytes:
        inside = png(side, side, 8, 6)
        return struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(inside), 22) + inside

    def apple_icon() -> bytes:
        inside = png(side, side, 8, 6)
        return (
            b"icns"
            + struct.pack(">I", 16 + len(inside))
            + b"ic10"
            + struct.pack(">I", 8 + len(inside))
            + inside
        )

    def psd() -> bytes:
        head = struct.pack(">4sH6xHIIHH", b"8BPS", 1, 4, short, short, 8, 4)
        return head + bytes(12) + b"\0\1" + struct.pack(">H", 2) * (4 * short)

    yield "icon of a PNG", icon
    yield "apple icon of a PNG", apple_icon
    yield "photoshop runs", psd
    yield "tga runs", lambda: struct.pack(
        "<BBBHHBHHHHBB", 0, 0, 10, 0, 0, 0, 0, 0, short, short, 24, 0) + bytes(4000)  # fmt: skip
    yield "ppm", lambda: b"P5 %d %d 255\n" % (side, side) + bytes(1000)
    yield "pfm", lambda: b"Pf\n%d %d\n-1.0\n" % (side, side) + bytes(1000)
    yield "jpeg 2000", lambda: encoded(Image.new("RGB", (64, 64)), "JPEG2000")
    yield "dds", lambda: encoded(Image.new("RGB", (64, 64)), "DDS")
    yield "pcx", lambda: encoded(Image.new("RGB", (64, 64)), "PCX")
    yield "sgi", lambda: encoded(Image.new("RGB", (64, 64)), "SGI")
    yield "qoi", lambda: struct.pack(">4sIIBB", b"qoif", side, side, 4, 0) + b"\xfd" * 1000
    yield "fits", lambda: b"SIMPLE  =                    T".ljust(2880)
    yield "xbm", lambda: b"#define im_width %d\n#define im_height %d\n" % (side, side)
    yield "svg", lambda: b"<svg xmlns='http://www.w3.org/2000/svg'>" + b"<g>" * 10**6
