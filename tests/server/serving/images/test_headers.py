"""server/serving/images/headers.py against Pillow, which has its own readers of the same fields."""

import io
import struct
from importlib.util import find_spec

import pytest
from PIL import Image

from server.problems import UnreadableImage
from server.serving.images import headers
from tests.server.serving.images.bombs.avif import of_tiles
from tests.server.serving.images.bombs.parts import encoded
from tests.server.serving.images.bombs.png import chunk, png
from tests.server.serving.images.bombs.tiff import SHORT, layout, tiff

SIZE = (80, 48)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_png_is_told_as_pillow_tells_it(mode: str) -> None:
    found = headers.read("PNG", encoded(Image.new(mode, SIZE), "PNG"))
    assert found is not None
    assert (found.width, found.height) == SIZE
    assert found.channels == {"LA": 2, "RGB": 3, "RGBA": 4}.get(mode, 1)
    assert found.depth == {"1": 1, "P": 1, "I;16": 16}.get(mode, 8)  # one colour: 1 bit
    assert found.transparent == (mode in {"LA", "RGBA"})


def test_what_else_makes_a_png_dear_is_told() -> None:
    assert headers.read("PNG", png(9, 9, 8, 6, interlaced=True)).interlaced  # type: ignore[union-attr]
    key = chunk(b"tRNS", bytes(6))
    assert headers.read("PNG", png(9, 9, 16, 2, before=key)).transparent  # type: ignore[union-attr]
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(Image.new("RGB", SIZE), "PNG", exif=exif)
    assert headers.read("PNG", turned).turned  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("WEBP", "RGB", {"quality": 50}),
        ("WEBP", "RGB", {"lossless": True}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("WEBP", "RGBA", {"quality": 50}),
        ("GIF", "P", {}),
        ("GIF", "P", {"transparency": 0}),
        ("BMP", "RGB", {}),
        ("BMP", "L", {}),
        ("BMP", "1", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "RGBA", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", "CMYK", {}),
        ("AVIF", "RGB", {}),
        ("AVIF", "RGBA", {}),
    ],
)
def test_sizes_and_transparency_are_those_of_pillow(
    kind: str, mode: str, options: dict[str, object]
) -> None:
    image = Image.new(mode, SIZE)
    if mode == "RGBA":
        image.putalpha(77)
    data = encoded(image, kind, **options)
    found = headers.read(kind, data)
    assert found is not None
    with Image.open(io.BytesIO(data)) as opened:
        assert (found.width, found.height) == opened.size
        assert found.pixels == opened.width * opened.height
    assert found.transparent == (mode == "RGBA" or "transparency" in options)


@pytest.mark.skipif(not find_spec("pillow_heif"), reason="pillow-heif is an extra: make heic")
def test_the_items_of_a_heic_are_counted() -> None:
    import pillow_heif  # noqa: PLC0415 - an extra

    pillow_heif.register_heif_opener()
    found = headers.read("HEIF", of_tiles("HEIF", 64, 320))
    assert found is not None
    assert (found.width, found.height, found.pieces) == (320, 320, 26)  # the grid is one


def test_the_items_of_an_avif_are_counted() -> None:
    found = headers.read("AVIF", of_tiles("AVIF", 64, 320))
    assert found is not None
    assert (found.width, found.height, found.pieces) == (320, 320, 26)


def test_the_frame_of_a_gif_may_be_larger_than_its_screen() -> None:
    data = bytearray(encoded(Image.new("P", SIZE), "GIF"))
    data[6:10] = struct.pack("<HH", 3, 3)
    found = headers.read("GIF", bytes(data))
    assert found is not None
    assert (found.width, found.height) == SIZE


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_is_read_in_both_byte_orders_and_sizes(order: str, big: bool) -> None:
    wide, count = ("Q", "Q") if big else ("I", "H")
    version = (43, 8, 0) if big else (42,)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}{len(version)}H", *version)
    at = len(head) + struct.calcsize(order + wide)
    tags = {256: 80, 257: 48, 259: 8, 274: 6, 277: 4}
    entries = b"".join(
        struct.pack(f"{order}HH{wide}", tag, 4, 1)
        + struct.pack(order + "I", value).ljust(struct.calcsize(order + wide), b"\0")
        for tag, value in tags.items()
    )
    data = head + struct.pack(order + wide, at) + struct.pack(order + count, len(tags)) + entries
    found = headers.read("TIFF", data)
    assert found is not None
    assert (found.width, found.height, found.channels, found.coding) == (80, 48, 4, 8)
    assert found.turned


def test_the_pieces_of_a_tiff_are_counted_and_found() -> None:
    tags = layout(16, 30, rows=3, bits=[8], compression=1, photometric=1)
    data = tiff(tags, [bytes(48), b"\1" * 48], 10)
    found = headers.read("TIFF", data)
    assert found is not None
    assert found.pieces == 10
    assert headers.tiff_pieces(data, 2) == [(8, 48, 5), (56, 48, 5)]
    with pytest.raises(UnreadableImage, match="more than the 1 strips or tiles"):
        headers.tiff_pieces(data, 1)


def test_tiles_that_reach_beyond_a_tiff_are_counted_as_pixels() -> None:
    tags = layout(17, 17, rows=16, bits=[8], compression=1, photometric=1, t322=16, t323=16)
    found = headers.read("TIFF", tiff(tags, [bytes(256)], 4, tiled=True))
    assert found is not None
    assert found.pixels == 4 * 256


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("PNG", b"\x89PNG\r\n\x1a\n"),
        ("WEBP", b"RIFF\0\0\0\0WEBPVP8 "),
        ("GIF", b"GIF89a\1"),
        ("BMP", b"BM"),
        ("TIFF", b"II*\0\xff\xff\0\0"),
        ("TIFF", tiff({256: (SHORT, [1])}, [b"\0"], 1)),
        ("AVIF", b"\0\0\0\x14ftypavif....ispe"),
        ("JPEG", b"\xff\xd8\xff"),
    ],
)
def test_what_cannot_be_read_is_none(kind: str, data: bytes) -> None:
    assert headers.read(kind, data) is None
