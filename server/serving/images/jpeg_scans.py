"""The scans of a JPEG: how often the coefficients of each component are processed.

In: the bytes of a JPEG, or of the JPEG in a strip of a TIFF. Out: a `Structure`. Nothing is
decoded: in entropy-coded data FF is always followed by 00 or a restart marker (ITU-T T.81,
B.1.1.5), so that only real markers are looked at, and what lies between them is skipped by numpy,
at gigabytes per second.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

# T.81, table B.1: the markers that a length follows, so that their bytes are skipped, and the end.
LENGTHY = (*range(0xC0, 0xD0), *range(0xD9, 0xF0), 0xFE)
IS_MARKER = np.isin(np.arange(256), LENGTHY)
MARKED = {bytes([code]) for code in LENGTHY}
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
ARITHMETIC = {*range(0xC9, 0xD0)} - {0xCC}
END_OF_IMAGE, START_OF_SCAN = 0xD9, 0xDA
END = b"\xff\xd9"
# Real files have some dozens of segments, profiles up to 255, and 10 scans with their tables; more
# than 1,000 before the pixels are refused (contracts/images/limits.py).
MAX_SEGMENTS = 1500
# Bytes that are searched at once; numpy needs eight times as much memory for that.
FIRST_BLOCK, LAST_BLOCK = 4 * 2**10, 2**20


@dataclass
class Structure:
    """Size and coding of a JPEG. `samples` are those of one pass over each component, by its id."""

    width: int = 0
    height: int = 0
    frame: int = 0
    samples: dict[int, int] = field(default_factory=dict)
    scans: int = 0
    scanned: int = 0  # samples that all scans together process
    segments: int = 0
    ended: bool = False  # by its own marker

    @property
    def arithmetic(self) -> bool:
        """Whether its entropy coding is arithmetic."""
        return self.frame in ARITHMETIC

    @property
    def buffered(self) -> bool:
        """Whether the decoder keeps all coefficients before it makes pixels."""
        return self.frame in PROGRESSIVE or self.scans > 1

    @property
    def endless(self) -> bool:
        """Whether it has so many segments that not all of them have been read."""
        return self.segments >= MAX_SEGMENTS


def structure(data: bytes) -> Structure:
    """What decoding the JPEG will take; without samples if no frame header was found."""
    found = Structure()
    following = _markers(data)
    at = 2
    while not found.endless and (marker := following(at)) != -1:
        code = data[marker + 1]
        at = marker + 2
        found.segments += 1
        if code == END_OF_IMAGE:
            if found.scans:
                found.ended = True
                break
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if code in FRAMES and not found.frame:
            _read_frame(found, code, data[at + 2 : at + length])
        elif code == START_OF_SCAN:
            _read_scan(found, data[at + 2 : at + length])
            if not found.buffered and found.scanned == sum(found.samples.values()):
                # The scan has all components, so that the decoder makes pixels while it reads it,
                # and reads no other.
                found.ended = data.rfind(END, at) >= 0
                break
        at += length
    return found


def _markers(data: bytes) -> Callable[[int], int]:
    """A function that gives where the first marker from a position on is, or -1.

    Positions are asked for in rising order. The part that is searched at once begins small, and
    doubles.
    """
    end, size, places = 0, FIRST_BLOCK, np.empty(0, np.intp)

    def look_up(at: int) -> int:
        nonlocal end, size, places
        if data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] in MARKED:
            return at  # as always when one segment follows another
        while (found := int(np.searchsorted(places, at))) == len(places):
            begin = max(at, end)
            if begin >= len(data) - 1:
                return -1
            end, size = begin + size, min(2 * size, LAST_BLOCK)
            places = _markers_in(data, begin, end)
        return int(places[found])

    return look_up


def _markers_in(data: bytes, begin: int, end: int) -> npt.NDArray[np.intp]:
    """The positions of the markers that begin in this part."""
    values = np.frombuffer(data, np.uint8)[begin : end + 1]
    places = np.flatnonzero(values[:-1] == 0xFF)
    return places[IS_MARKER[values[places + 1]]] + begin


def _read_frame(found: Structure, code: int, body: bytes) -> None:
    if len(body) < 6:
        return
    found.frame = code
    found.height, found.width = (int.from_bytes(body[n : n + 2], "big") for n in (1, 3))
    parts = [body[n : n + 3] for n in range(6, min(len(body), 6 + 3 * body[5]), 3)]
    factors = {part[0]: (part[1] >> 4 or 1, part[1] & 15 or 1) for part in parts if len(part) == 3}
    most_across = max((across for across, _ in factors.values()), default=1)
    most_down = max((down for _, down in factors.values()), default=1)
    for number, (across, down) in factors.items():
        blocks = -(-found.width * across // (8 * most_across))
        lines = -(-found.height * down // (8 * most_down))
        found.samples[number] = 64 * blocks * lines


def _read_scan(found: Structure, body: bytes) -> None:
    found.scans += 1
    parts = body[1 : 1 + 2 * body[0] : 2] if body else b""
    every = max(found.samples.values(), default=0)
    found.scanned += sum(found.samples.get(number, every) for number in parts)
