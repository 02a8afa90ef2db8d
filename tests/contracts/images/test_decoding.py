"""contracts/images/decoding.py: every format, mode and turn, and bytes that are none of them."""

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from contracts.images.decoding import is_quick, model_input, open_header, read
from contracts.images.errors import (
    ImageError,
    TooManyPixelsError,
    UnreadableImageError,
    UnsupportedTypeError,
)
from contracts.resizing import Pixels, ResizeRule
from server.serving.images.decoding import PROBLEMS
from tests.contracts.images.corpus.metadata import STORED
from tests.photos import photo
from tests.server.serving.images.bombs.png import chunk
from tests.server.web.hostile_images import Case, jpeg, laborious, png, segment, tiff

LIMIT = 50_000_000
AS_IS = ResizeRule(24, 32)
COLOURS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(data: bytes, rule: ResizeRule = AS_IS) -> Pixels:
    return read(data, rule, LIMIT)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_give_their_pixels(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(pixels(encode(Image.fromarray(COLOURS), kind, **options)), COLOURS)


def test_jpeg_and_gif_give_almost_their_pixels() -> None:
    grey = Image.linear_gradient("L").resize((32, 24)).convert("RGB")
    for data in (encode(grey, "JPEG", quality=95), encode(grey, "GIF")):
        assert np.abs(pixels(data).astype(int) - np.asarray(grey).astype(int)).max() <= 4


def test_transparency_is_laid_over_white() -> None:
    alpha = np.zeros((24, 32), np.uint8)
    alpha[:, 16:] = 255
    rgba = Image.fromarray(np.dstack([COLOURS, alpha]))
    expected = np.where(alpha[..., None] == 255, COLOURS, 255)
    assert np.array_equal(pixels(encode(rgba, "PNG")), expected)
    grey_alpha = Image.fromarray(np.dstack([COLOURS[..., 0], alpha]), "LA")
    expected = np.where(alpha == 255, COLOURS[..., 0], 255)[..., None].repeat(3, axis=2)
    assert np.array_equal(pixels(encode(grey_alpha, "PNG")), expected)
    palette = Image.new("P", (32, 24), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    assert (pixels(encode(palette, "PNG", transparency=1)) == 255).all()
    assert (pixels(encode(palette, "PNG")) == (255, 0, 0)).all()
    assert (pixels(encode(palette, "GIF", transparency=1)) == 255).all()


def test_of_16_bits_the_upper_8_count() -> None:
    deep = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) * 85
    for kind in ("PNG", "TIFF"):
        data = encode(Image.fromarray(deep), kind)
        assert np.array_equal(pixels(data)[..., 0], (deep >> 8).astype(np.uint8))


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr"])
def test_other_modes_become_rgb(mode: str) -> None:
    kind = "TIFF" if mode == "YCbCr" else "JPEG" if mode == "CMYK" else "PNG"
    assert (pixels(encode(Image.new("RGB", (32, 24), "white").convert(mode), kind)) >= 254).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientations_are_turned(kind: str, orientation: int) -> None:
    upright = np.zeros((24, 32, 3), np.uint8)
    upright[:12, :16] = (255, 0, 0)
    upright[12:, 16:] = (0, 255, 0)
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    if kind == "WEBP":
        options["lossless"] = True
    data = encode(stored, kind, exif=exif, **options)
    assert np.abs(pixels(data).astype(int) - upright).max() <= 6


def test_a_large_jpeg_is_decoded_smaller_with_the_same_result() -> None:
    data = photo(0, 2000, 1500)
    exact = np.asarray(Image.open(io.BytesIO(data)).resize((32, 24), Image.Resampling.BILINEAR))
    assert np.abs(pixels(data).astype(int) - exact).mean() < 1
    unaliased = ResizeRule(24, 32, antialias=False)
    full = unaliased.apply(Image.open(io.BytesIO(data)))
    assert np.array_equal(pixels(data, unaliased), full)


@pytest.mark.parametrize(
    ("width", "height", "side"), [(2003, 1501, 32), (1999, 767, 64), (4032, 3024, 224)]
)
def test_a_jpeg_decoded_smaller_stays_in_its_place(width: int, height: int, side: int) -> None:
    data = photo(1, width, height)
    image = Image.open(io.BytesIO(data))
    exact = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(pixels(data, ResizeRule(side, side)) - exact).mean() < 1


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("divisor", [1, 2, 3, 4, 8, 9])
def test_a_jpeg_decodes_as_by_pillows_own_reader(
    mode: str, progressive: bool, divisor: int
) -> None:
    """At every fraction, of sides that no fraction divides."""
    file = io.BytesIO()
    Image.open(io.BytesIO(photo(0, 149, 83))).convert(mode).save(
        file, "JPEG", progressive=progressive
    )
    at_least = 83 // divisor
    theirs = Image.open(file)
    assert isinstance(theirs, JpegImageFile)
    drafted = theirs.draft(None, (at_least, at_least))
    theirs.load()
    ours = open_header(file.getvalue(), LIMIT)
    box = ours.load(at_least)
    assert ours.image.mode == mode
    assert ours.image.tobytes() == theirs.tobytes()
    assert drafted is not None
    assert (box or (0, 0, 149, 83)) == drafted[1]


def test_of_an_animation_the_first_frame_counts() -> None:
    frames = [Image.new("RGB", (32, 24), colour) for colour in ("white", "black")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (pixels(data) == 255).all()


JPEG = photo(1, 320, 240)
PNG = photo(1, 320, 240, "PNG")


@pytest.mark.parametrize(
    ("data", "problem", "message"),
    [
        pytest.param(b"hello", UnsupportedTypeError, "are text", id="text"),
        pytest.param(b"", UnsupportedTypeError, "0 bytes", id="empty"),
        pytest.param(b"%PDF-1.7 and so on", UnsupportedTypeError, "JPEG, PNG, WebP", id="pdf"),
        pytest.param(b"<svg></svg>", UnsupportedTypeError, "an SVG drawing", id="svg"),
        pytest.param(JPEG[: len(JPEG) // 2], UnreadableImageError, "truncated", id="half a JPEG"),
        pytest.param(PNG[: len(PNG) // 2], UnreadableImageError, "truncated", id="half a PNG"),
        pytest.param(JPEG[:5], UnreadableImageError, "JPEG header", id="five bytes of a JPEG"),
        pytest.param(PNG[:20], UnreadableImageError, "PNG header", id="twenty bytes of a PNG"),
        pytest.param(b"RIFF\0\0\0\0WEBPnothing", UnreadableImageError, "WEBP", id="empty WebP"),
        pytest.param(b"II*\0" + b"\xff" * 60, UnreadableImageError, "TIFF", id="TIFF without end"),
        pytest.param(b"BM" + b"\0" * 60, UnreadableImageError, "BMP", id="BMP of zeros"),
        pytest.param(b"GIF89a" + b"\0" * 60, UnreadableImageError, "", id="GIF of zeros"),
    ],
)
def test_what_is_no_image_is_recognised(
    data: bytes, problem: type[ImageError], message: str
) -> None:
    with pytest.raises(problem) as caught:
        pixels(data)
    assert message in str(caught.value)


def test_random_damage_never_gets_past_the_problems() -> None:
    random = np.random.default_rng(2)
    kinds = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
    whole = [encode(Image.fromarray(COLOURS), kind) for kind in kinds]
    for data in whole * 40:
        damaged = bytearray(data)
        for at in random.integers(8, len(data), 8):
            damaged[at] = random.integers(256)
        with contextlib.suppress(UnreadableImageError, UnsupportedTypeError, TooManyPixelsError):
            assert pixels(bytes(damaged)).shape == (24, 32, 3)


def test_more_pixels_than_the_limit_are_refused_by_the_header() -> None:
    huge = encode(Image.new("1", (10_000, 6_000)), "PNG")
    with pytest.raises(TooManyPixelsError, match="10000×6000 = 60000000 pixels, at most 50000000"):
        open_header(huge, LIMIT)
    open_header(huge, 60_000_000)


def test_32_bits_per_channel_are_refused() -> None:
    with pytest.raises(UnreadableImageError, match="32 bits"):
        pixels(encode(Image.new("F", (32, 24)), "TIFF"))


@pytest.mark.parametrize("case", list(laborious()), ids=lambda case: case.name)
def test_what_takes_more_than_its_size_tells_is_refused(case: Case) -> None:
    status = 200
    try:
        pixels(case.body)
    except ImageError as error:
        status = PROBLEMS[type(error)].status
    assert status in case.statuses


@pytest.mark.parametrize("code", [b"\x01", b"\x02", b"\xbf", b"\xf0"])
def test_scans_are_counted_after_a_marker_without_a_length(code: bytes) -> None:
    whole = encode(Image.fromarray(COLOURS), "JPEG", progressive=True)
    start = whole.index(b"\xff\xda")
    scan = whole[start : whole.index(b"\xff\xc4", start)]
    with pytest.raises(UnreadableImageError, match="100 scans"):
        open_header(whole[:-2] + b"\xff" + code + scan * 100 + b"\xff\xd9", LIMIT)
    pixels(whole[:-2] + scan * 90 + b"\xff\xd9")


TABLE = segment(b"\xff\xdb", b"\3" + bytes(range(1, 65)))  # one that no component uses
PROFILE = chunk(b"iCCP", b"a\0\0x")


@pytest.mark.parametrize(
    ("most", "message"),
    [
        # A JPEG has 8 segments of its own: JFIF, a frame header and 6 tables.
        pytest.param(lambda more: jpeg(TABLE * (25 + more)), "32 segments of tables", id="DQT"),
        pytest.param(
            lambda more: jpeg(segment(b"\xff\xe5", b"") * (992 + more)), "1000 segments", id="APP"
        ),
        pytest.param(
            lambda more: png(32, 24, 8, 0, bytes(33 * 24), before=PROFILE * (9_998 + more)),
            "10000 chunks",
            id="iCCP",
        ),
    ],
)
def test_segments_are_limited(most: Callable[[int], bytes], message: str) -> None:
    pixels(most(0))
    with pytest.raises(UnreadableImageError, match=message):
        open_header(most(1), LIMIT)


def test_tiles_may_reach_over_the_edge_but_not_be_far_more_than_the_image() -> None:
    small = tiff({256: 10, 257: 10, 322: 256, 323: 256}, bytes(2**16))
    read(small, AS_IS, 2**16)
    with pytest.raises(TooManyPixelsError, match="1×1 tiles of 256×256 pixels, at most 65535"):
        open_header(small, 2**16 - 1)
    open_header(tiff({256: 257, 257: 255, 322: 256, 323: 256}, bytes(2**16), 2), 2**16)
    three = tiff({256: 513, 257: 20, 322: 256, 323: 256}, bytes(2**16), 3)
    with pytest.raises(TooManyPixelsError, match=r"3×1 tiles of 256×256 .* and 131072 in all"):
        open_header(three, 2**16)


def test_an_uncompressed_tiff_is_decoded_once_however_often_it_lists_its_strips() -> None:
    listed = tiff({256: 128, 257: 128, 278: 64}, bytes(range(256)) * 32, 50_000)
    encoded = open_header(listed, LIMIT)
    assert isinstance(encoded.image, TiffImageFile)
    assert len(encoded.image.tile) == 1
    assert np.array_equal(
        model_input(encoded, ResizeRule(128, 128))[..., 0],
        np.arange(128 * 128, dtype=np.uint8).reshape(128, 128),
    )


def test_what_comes_after_an_image_is_no_part_of_it() -> None:
    source = Image.fromarray(COLOURS)
    assert np.array_equal(pixels(encode(source, "PNG") + bytes(10**6)), COLOURS)
    assert pixels(encode(source, "JPEG") + bytes(10**6)).shape == COLOURS.shape


def test_fill_bytes_may_come_before_a_marker() -> None:
    whole = encode(Image.fromarray(COLOURS), "JPEG")
    at = whole.index(b"\xff\xdb")
    filled = whole[:at] + b"\xff" * 10_000 + whole[at:]
    assert np.array_equal(pixels(filled), pixels(whole))


def test_only_what_its_size_bounds_is_quick() -> None:
    source = Image.fromarray(COLOURS)
    quick = {kind: is_quick(encode(source, kind)) for kind in ("JPEG", "PNG", "BMP", "TIFF")}
    assert quick == {"JPEG": True, "PNG": True, "BMP": False, "TIFF": False}
    assert is_quick(encode(source, "PNG", icc_profile=bytes(500)))  # which is never inflated
    assert not is_quick(png(1, 1, 8, 2, bytes(4), before=chunk(b"prVt", b"") * 100))
    with pytest.raises(UnsupportedTypeError):
        is_quick(b"hello")


PEAK = """
import re, sys
from pathlib import Path
from contracts.images.decoding import model_input, open_header
from contracts.resizing import ResizeRule

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

rule = ResizeRule(24, 32, antialias=False)
small, large = sys.stdin.buffer.read().split(b"|||")
model_input(open_header(small, 2**30), rule)
before = peak()
image = open_header(large, 2**30)
model_input(image, rule)
print((peak() - before) * 1024 / 4000**2)
"""


@pytest.mark.parametrize(
    ("kind", "mode", "options", "most"),
    [
        ("WEBP", "RGBA", {"lossless": True, "method": 0}, 16),
        ("PNG", "LA", {}, 13),
        ("PNG", "RGBA", {}, 10),
        ("JPEG", "CMYK", {"progressive": True, "subsampling": 0}, 12),
        ("AVIF", "RGBA", {"speed": 10}, 12),
    ],
)
def test_decoding_takes_the_memory_that_docs_serving_md_tells(
    kind: str, mode: str, options: dict[str, object], most: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    both = (encode(Image.new(mode, (side, side)), kind, exif=exif, **options) for side in (8, 4000))
    done = subprocess.run(
        [sys.executable, "-c", PEAK], input=b"|||".join(both), capture_output=True, check=True
    )
    assert float(done.stdout) < most + 1  # what else a process allocates
