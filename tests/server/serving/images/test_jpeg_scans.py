"""server/serving/images/jpeg_scans.py against what Pillow's encoder writes, and against T.81."""

import io

import pytest
from PIL import Image

from server.serving.images import jpeg_scans
from tests.photos import photo
from tests.server.serving.images.bombs.jpeg import (
    arithmetic_scans,
    flat_baseline,
    huffman_scans,
    separate_scans,
    with_segments,
)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_photograph_of_pillow(progressive: bool) -> None:
    file = io.BytesIO()
    with Image.open(io.BytesIO(photo(0, 160, 96))) as image:
        image.save(file, "JPEG", progressive=progressive, subsampling="4:2:0")
    found = jpeg_scans.structure(file.getvalue())
    assert (found.width, found.height) == (160, 96)
    assert found.buffered == progressive
    assert found.scans == (10 if progressive else 1)  # libjpeg's script for colour
    # Luma of 8 × 8 blocks, chroma at half of both sides.
    assert sorted(found.samples.values()) == [80 * 48, 80 * 48, 160 * 96]
    assert found.ended
    assert not found.arithmetic


@pytest.mark.parametrize("scans", [2, 30, 100])
def test_scans_are_counted_with_what_they_go_over(scans: int) -> None:
    found = jpeg_scans.structure(huffman_scans(scans, 1, 64, 64))
    assert (found.scans, found.scanned) == (scans, scans * 64 * 64)
    found = jpeg_scans.structure(arithmetic_scans(scans, 64, 64))
    assert (found.scans, found.arithmetic, found.buffered) == (scans, True, True)


def test_a_baseline_in_scans_of_its_own_is_kept_whole() -> None:
    assert not jpeg_scans.structure(flat_baseline(64, 64, [0x11] * 3)).buffered
    found = jpeg_scans.structure(separate_scans(64, 64, 3))
    assert (found.scans, found.buffered) == (3, True)


def test_the_sampling_of_each_component_counts() -> None:
    found = jpeg_scans.structure(flat_baseline(64, 64, [0x41, 0x11, 0x12]))
    assert list(found.samples.values()) == [64 * 32, 16 * 32, 16 * 64]


def test_bytes_of_pixels_are_no_markers() -> None:
    """FF 00 is FF, and D0 to D7 are restarts (T.81, B.1.1.5); the markers after them are found."""
    data = huffman_scans(3, 1, 64, 64)
    end = data.rindex(b"\xff\xda") + 10
    for size in (10, 5_000, 3_000_000):  # within one part that is searched at once, and over many
        grain = b"\xff\0\xff\xd0\x12" * size
        found = jpeg_scans.structure(data[:end] + grain + data[end:])
        assert (found.scans, found.ended) == (3, True)
        assert not jpeg_scans.structure(data[:end] + grain).ended


def test_a_thumbnail_is_not_the_image() -> None:
    inside = flat_baseline(16, 16, [0x11])
    segment = b"\xff\xe1" + (len(inside) + 2).to_bytes(2, "big") + inside
    data = flat_baseline(64, 64, [0x11])
    found = jpeg_scans.structure(data[:2] + segment + data[2:])
    assert (found.width, found.scans, found.ended) == (64, 1, True)


def test_endless_segments_are_told_and_not_gone_through() -> None:
    data = flat_baseline(16, 16, [0x11])
    most = data[:2] + b"\xff\xfe\0\2" * jpeg_scans.MAX_SEGMENTS + data[2:]
    assert jpeg_scans.structure(most).endless
    assert not jpeg_scans.structure(with_segments(data, 400)).endless


@pytest.mark.parametrize("cut", range(2, 40))
def test_any_cut_is_read_without_an_error(cut: int) -> None:
    data = flat_baseline(16, 16, [0x11] * 3)
    assert not jpeg_scans.structure(data[:cut]).scans
