"""No image takes more than 3 honest JPEGs of CPU, nor more memory than is documented.

Measured in processes of their own, at a limit of 3 megapixels, where a JPEG is decoded at a
fraction as at 50; docs/bombs.md has the table of the full size. CPU is told by the process, so that
other work on the machine hardly counts, and what seems too dear is measured again.
"""

from collections.abc import Iterator

import pytest

from server.serving.images import cost, worker
from tests.server.serving.images.bombs.every import bombs
from tests.server.serving.images.bombs.honest import honest
from tests.server.serving.images.measure import HONEST, Meter, Row, judged

PIXELS = 3_000_000
MOST = 3.0
# What the allocator rounds up, and what was read into memory for the first time.
ROUNDED_BYTES = 4 * 2**20
# Their pixels may be more than they say: what they take then is bounded where they are decoded.
MAY_LIE = ("avif larger", "heic larger")
FORMATS = ("jpeg", "png", "webp", "gif", "bmp", "tiff", "avif")


@pytest.fixture(scope="module")
def meter() -> Iterator[Meter]:
    with Meter() as running:
        yield running


@pytest.fixture(scope="module")
def unit(meter: Meter) -> float:
    """Seconds of CPU for the honest progressive JPEG of the limit."""
    return meter.measured(honest(PIXELS)[HONEST](), PIXELS, 5).cpu


@pytest.fixture(scope="module")
def rows(meter: Meter) -> list[Row]:
    return list(judged(meter, PIXELS, bombs(PIXELS)))


def test_the_corpus_has_every_format_and_coding(rows: list[Row]) -> None:
    assert len(rows) > 140
    for name in FORMATS:
        assert sum(row.name.startswith(name) for row in rows) >= 5, name


def test_none_takes_more_cpu_than_3_honest_jpegs(
    rows: list[Row], meter: Meter, unit: float
) -> None:
    makers = bombs(PIXELS)
    allowed = MOST * unit + cost.ALLOWED_SECONDS
    for row in rows:
        if row.measured is None or row.measured.cpu <= allowed:
            continue
        again = meter.measured(makers[row.name](), PIXELS, 8)
        assert again.cpu <= allowed, f"{row.name}: {again.cpu / unit:.2f} ×"


def test_none_takes_more_memory_than_its_price_or_than_is_documented(rows: list[Row]) -> None:
    """The peak is VmHWM, the kernel's own account of the most that was resident."""
    for row in rows:
        if row.measured is None or row.price is None:
            continue
        slack = worker.SLACK_BYTES if row.name.startswith(MAY_LIE) else ROUNDED_BYTES
        assert row.measured.peak <= row.price.memory + slack, row.name
        most = cost.BYTES_PER_PIXEL * PIXELS + cost.ALLOWED_BYTES + ROUNDED_BYTES
        assert row.measured.peak <= most, row.name


def test_what_is_refused_says_why_and_what_to_do(rows: list[Row]) -> None:
    for row in rows:
        assert len(row.refusal) == 0 or len(row.refusal) > 30, row.refusal
        if row.price is not None and row.refusal:
            assert "save it" in row.refusal or "scale it down" in row.refusal, row.refusal


@pytest.mark.parametrize("name", honest(1))
def test_honest_photographs_of_four_fifths_of_the_limit_are_answered(
    name: str, meter: Meter
) -> None:
    """Of JPEGs also those of the whole limit."""
    pixels = PIXELS if name.startswith("jpeg") else int(0.8 * PIXELS)
    [row] = judged(meter, PIXELS, {name: honest(pixels)[name]})
    assert row.refusal == ""
    assert row.measured is not None
    assert row.measured.problem == ""
