"""TIFF 6.0 and BigTIFF: the first page, without the metadata around it.

In: the bytes of a file. Out: a `Layout`: a TIFF of the same pixels with only the tags that
determine the pixels, and the values of these tags. A TIFF that Pillow would read wrongly is
refused, or marked so that `colours` corrects it.
"""

import struct
from dataclasses import dataclass

from contracts.images.errors import UnreadableImageError
from contracts.images.limits import check_tags

# TIFF 6.0, sections 4 to 8, 14, 15, 18, 21, 22; technical note 2.
SUBFILE, WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
SUB_DIRECTORIES, COLOUR_MAP, EXTRA_SAMPLES, SAMPLE_FORMAT = 330, 320, 338, 339
TILE_WIDTH, TILE_LENGTH, ORIENTATION = 322, 323, 274
PIXEL_TAGS = {
    *(WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, COLOUR_MAP, EXTRA_SAMPLES, SAMPLE_FORMAT),
    # Order of bits; strips; orientation; samples; rows and bytes of strips; planes; fax options;
    # predictor; tiles.
    *(266, 273, ORIENTATION, 277, 278, 279, 284, 292, 293, 317, TILE_WIDTH, TILE_LENGTH, 324, 325),
    # JPEG's tables, its old form, YCbCr's coefficients, subsampling and places, ranges.
    *(347, *range(512, 522), 529, 530, 531, 532),
}
# Tags that are read here must be complete, or the decoder could read them in another way.
MEANING_TAGS = {
    *(WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, EXTRA_SAMPLES, SAMPLE_FORMAT),
    *(TILE_WIDTH, TILE_LENGTH),
}
READ_TAGS = {SUBFILE, ORIENTATION, *MEANING_TAGS}
DNG_VERSION = 50706
# The types of integers, by number (section 2, BigTIFF), and their letters and sizes in struct.
LETTERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q", 17: "q"}
SIZES = {"B": 1, "H": 2, "I": 4, "Q": 8, "b": 1, "h": 2, "i": 4, "q": 8}
MAX_VALUES = 16  # of one tag, that are read here
WHITE_IS_ZERO, BLACK_IS_ZERO, SENSOR, LINEAR_RAW = 0, 1, 32803, 34892
UNSIGNED = 1
# Facsimile, where white is zero, and old-style JPEG, which has its own colours.
STATES_NO_COLOUR = {2, 3, 4, 6}

Tags = dict[int, tuple[int, ...]]


@dataclass(frozen=True)
class Layout:
    """What is known of a TIFF before it is decoded."""

    data: bytes  # without metadata and further pages
    tags: Tags  # those of integers that are read here

    @property
    def bits(self) -> int:
        """Bits per sample, of the first sample."""
        return self.tags.get(BITS, (1,))[0]

    @property
    def inverted(self) -> bool:
        """Whether the decoded samples of more than 8 bits have white at zero."""
        return self.bits > 8 and self.tags.get(PHOTOMETRIC) == (WHITE_IS_ZERO,)


def read_layout(data: bytes) -> Layout:
    """The layout of a TIFF.

    Raises `UnreadableImageError` if its directory is broken or describes an unsupported image.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in {b"+\0", b"\0+"}
    if data[8:10] == b"CR" and not big:
        raise _raw("Canon's CR2")
    offset = "Q" if big else "I"
    head, entry = (8, 20) if big else (2, 12)
    try:
        (at,) = struct.unpack_from(order + offset, data, 8 if big else 4)
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
        check_tags(count)
        end = at + head + count * entry + SIZES[offset]
        struct.unpack_from("x", data, end - 1)  # or it is broken
        entries, tags = _entries(data, order, range(at + head, end - SIZES[offset], entry))
    except (struct.error, OverflowError) as error:
        raise UnreadableImageError(
            "the TIFF header cannot be read: its directory lies beyond the end of the file"
        ) from error
    for tag in MEANING_TAGS:
        if tag in entries and tag not in tags:
            raise UnreadableImageError(f"the TIFF header has a broken tag {tag}; save it anew")
    _check_meaning(set(entries), tags)
    layout = Layout(data, tags)
    if layout.inverted:
        # Pillow supports white at zero only up to 8 bits; deeper samples are inverted by `colours`.
        where = 12 if big else 8
        stated = entries[PHOTOMETRIC]
        black = struct.pack(order + "H", BLACK_IS_ZERO)
        entries[PHOTOMETRIC] = stated[:2] + struct.pack(order + "H", 3) + stated[4:where] + black
        entries[PHOTOMETRIC] = entries[PHOTOMETRIC].ljust(entry, b"\0")
    if not 1 <= tags.get(ORIENTATION, (0,))[0] <= 8:
        entries.pop(ORIENTATION, None)
    kept = [stated for tag, stated in entries.items() if tag in PIXEL_TAGS]
    directory = b"".join(
        (struct.pack(order + ("Q" if big else "H"), len(kept)), *kept, bytes(SIZES[offset]))
    )
    view = memoryview(data)
    return Layout(b"".join((view[:at], directory, view[at + len(directory) :])), tags)


def _entries(data: bytes, order: str, places: range) -> tuple[dict[int, bytes], Tags]:
    """The entries of a directory by their tags, the first of each, and the values of some."""
    entries, tags = dict[int, bytes](), Tags()
    offset, inline = ("Q", 12) if places.step == 20 else ("I", 8)
    for place in places:
        tag, kind, count = struct.unpack_from(order + "HH" + offset, data, place)
        if tag in entries:
            continue
        entries[tag] = data[place : place + places.step]
        letter = LETTERS.get(kind)
        if tag in READ_TAGS and letter and 0 < count <= MAX_VALUES:
            where = place + inline
            if count * SIZES[letter] > SIZES[offset]:
                (where,) = struct.unpack_from(order + offset, data, where)
            tags[tag] = struct.unpack_from(f"{order}{count}{letter}", data, where)
    return entries, tags


def _check_meaning(present: set[int], tags: Tags) -> None:
    reduced = tags.get(SUBFILE, (0,))[0] & 1 and SUB_DIRECTORIES in present
    if DNG_VERSION in present or reduced or tags.get(PHOTOMETRIC) in {(SENSOR,), (LINEAR_RAW,)}:
        raise _raw("DNG, NEF or ARW")
    bits, kinds = tags.get(BITS, (1,)), set(tags.get(SAMPLE_FORMAT, (UNSIGNED,)))
    if kinds != {UNSIGNED} or max(bits) > 16:
        kind = "signed or floating-point" if kinds != {UNSIGNED} else "unsigned"
        raise UnreadableImageError(
            f"the TIFF has {max(bits)} bits per sample, {kind}, whose range is not defined; save "
            "it with 8 or 16 unsigned ones"
        )
    if PHOTOMETRIC not in present and tags.get(COMPRESSION, (1,))[0] not in STATES_NO_COLOUR:
        raise UnreadableImageError(
            "the TIFF does not state whether zero is black or white (PhotometricInterpretation); "
            "save it anew"
        )


def unread(tags: Tags, reason: str) -> str:
    """The message for a TIFF with these tags that Pillow refused with this `reason`."""
    bits = ", ".join(map(str, tags.get(BITS, (1,))))
    return (
        f"the TIFF has samples of {bits} bits, photometric interpretation "
        f"{tags.get(PHOTOMETRIC, (0,))[0]} and compression {tags.get(COMPRESSION, (1,))[0]}, which "
        f"is not read ({reason}); save it as plain RGB or grey of 8 or 16 bits"
    )


def _raw(kind: str) -> UnreadableImageError:
    return UnreadableImageError(
        f"the file is a camera's raw file ({kind}), of which only the preview could be read; "
        "convert it to JPEG or TIFF"
    )
