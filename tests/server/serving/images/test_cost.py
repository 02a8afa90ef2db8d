"""server/serving/images/cost.py: what an image costs is told from its header, and bounded."""

import contextlib
import io
import math
import time

import pytest
from PIL import Image

from contracts.resizing import ResizeRule
from server.problems import Problem, TooManyPixels, UnreadableImage
from server.serving.images import cost
from server.serving.images.decoding import kind_of
from tests.photos import photo
from tests.server.serving.images.bombs.avif import of_tiles
from tests.server.serving.images.bombs.jpeg import (
    arithmetic_scans,
    flat_baseline,
    head,
    huffman_scans,
)
from tests.server.serving.images.bombs.parts import Generator, encoded
from tests.server.serving.images.bombs.png import chunk, png
from tests.server.serving.images.bombs.tiff import SHORT, layout, tiff

RULE = ResizeRule(32, 32)
LIMIT = 50_000_000


def price(data: bytes, rule: ResizeRule = RULE) -> cost.Price:
    return cost.price(kind_of(data), data, rule)


def progressive(side: int) -> bytes:
    file = io.BytesIO()
    with Image.open(io.BytesIO(photo(0, side, side))) as image:
        image.save(file, "JPEG", progressive=True, quality=85)
    return file.getvalue()


def test_the_unit_is_an_honest_progressive_jpeg() -> None:
    data = progressive(2000)
    assert price(data).seconds == pytest.approx(cost.honest(4_000_000, RULE), rel=0.35)


@pytest.mark.parametrize(
    ("cheap", "dear"),
    [
        (huffman_scans(10, 1, 800, 800), huffman_scans(100, 1, 800, 800)),
        (huffman_scans(10, 1, 800, 800), arithmetic_scans(10, 800, 800)),
        (png(800, 800, 8, 2), png(800, 800, 16, 2)),
        (png(800, 800, 8, 6), png(800, 800, 8, 6, interlaced=True)),
        (png(800, 800, 8, 2), png(800, 800, 8, 2, before=chunk(b"eXIf", b"II*\0"))),
        (png(800, 800, 8, 0), png(1, 640_000, 8, 0)),
        (of_tiles("AVIF", 512, 640), of_tiles("AVIF", 64, 640)),
        (
            tiff(layout(48, 48, rows=48, bits=[8], compression=1, photometric=1), [b"\0"], 1),
            tiff(layout(48, 48, rows=1, bits=[8], compression=1, photometric=1), [b"\0"], 48),
        ),
    ],
)
def test_what_takes_longer_costs_more(cheap: bytes, dear: bytes) -> None:
    assert price(dear).seconds > price(cheap).seconds
    assert price(dear).bound >= price(dear).seconds


def test_bytes_count_as_well() -> None:
    small = price(flat_baseline(800, 800, [0x11]))
    large = price(flat_baseline(800, 800, [0x11])[:-2] + b"\0" * 10**6 + b"\xff\xd9")
    assert large.seconds > small.seconds
    assert large.memory >= small.memory + 10**6


def test_without_antialias_the_whole_image_becomes_an_array() -> None:
    data = flat_baseline(3000, 3000, [0x11])
    plain = ResizeRule(32, 32, antialias=False)
    assert price(data, plain).memory > price(data).memory + 5 * 9_000_000
    assert price(data, plain).seconds > price(data).seconds


def test_what_may_lie_goes_where_it_can_be_ended() -> None:
    image = encoded(Image.new("RGB", (64, 64)), "AVIF")
    assert price(image).bound == math.inf
    assert price(image).killable
    assert not price(photo(0)).killable


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: png(8000, 8000, 1, 0), "the image has 8000×8000 = 64000000 pixels, at most 5000"),
        (
            lambda: arithmetic_scans(100, 7064, 7064),
            r"the JPEG of 7064×7064 pixels would take 1\d\d",
        ),
        (lambda: png(8, LIMIT // 8, 8, 0), "times as long to decode as a progressive JPEG of 5000"),
        (
            lambda: encoded(Image.new("RGB", (7064, 7064)), "WEBP", lossless=True, method=0),
            r"would take \d+ MiB to decode, at most 794 are accepted; scale it down, or save it as",
        ),
    ],
)
def test_what_costs_too_much_is_refused_with_a_sentence(make: Generator, says: str) -> None:
    with pytest.raises(TooManyPixels, match=says):
        cost.check(price(make()), LIMIT, RULE)


@pytest.mark.parametrize("side", [1, 64, 500])
def test_a_small_image_is_never_too_expensive(side: int) -> None:
    """Also where the limit is low: every image may take some milliseconds."""
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        data = encoded(Image.new("RGB", (side, side)), kind)
        cost.check(price(data), side * side, RULE)


def headless() -> list[bytes]:
    """Files whose header cannot be read, some with as much before that as a reader looks at."""
    texts = chunk(b"tEXt", b"a\0b") * 9_900
    without_width = layout(16, 16, rows=16, bits=[8], compression=1, photometric=1)
    del without_width[256]
    wide = without_width | {320: (SHORT, [1] * 4_000_000)}
    colour = png(8, 8, 8, 2, before=texts)
    return [
        colour[:25] + b"\7" + colour[26:],
        b"GIF89a" + bytes(7) + b"!\xfe" + b"\1a" * 90_000,
        tiff(wide, [bytes(256)], 1),
        tiff(without_width, [bytes(2)], 1_000_000),
        b"\xff\xd8" + b"\xff\xd9" * 10**6,
        head(0xC0, 64, 64, [0x11]) + b"\xff\xfe\0\2" * 10**6,
        b"RIFF\0\0\0\1WEBPVP8X",
        b"BM" + bytes(12),
    ]


@pytest.mark.parametrize("data", headless(), ids=lambda data: f"{data[:8]!r}")
def test_to_say_why_a_header_cannot_be_read_costs_little(data: bytes) -> None:
    """Less than a tenth of the unit at the default limit; CPU of this thread, the least of some."""
    took = []
    for _ in range(5):
        began = time.thread_time()
        with pytest.raises(UnreadableImage) as raised:
            price(data)
        took.append(time.thread_time() - began)
    assert len(raised.value.detail) > 20
    assert min(took) < 0.1 * cost.honest(LIMIT, RULE)


def test_every_cut_of_every_format_has_a_price_or_a_problem() -> None:
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        data = encoded(Image.new("RGB", (40, 30)), kind)
        for cut in range(16, min(len(data), 300), 7):
            with contextlib.suppress(Problem):
                assert price(data[:cut]).seconds > 0
