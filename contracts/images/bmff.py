"""AVIF and HEIC: files of boxes (ISO/IEC 14496-12), whose items may be metadata.

In: the bytes of a file. Out: the brands that the file declares, and the same file without metadata:
items of EXIF and XMP become free space of the same length. Such an image is turned by its own
properties (irot and imir), never by EXIF (AVIF 1.1, section 2.1; ISO/IEC 23008-12, annex A.2).
"""

AVIF_BRANDS = {b"avif", b"avis"}
HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
METADATA = {b"Exif", b"mime"}
MAX_BOXES = 10_000  # at one level, since they are read in Python; a photograph has about 100


def brands(data: bytes) -> set[bytes]:
    """The brands in the first box of a file; empty if the file does not consist of boxes."""
    if data[4:8] != b"ftyp":
        return set()
    size = int.from_bytes(data[:4], "big")
    listed = data[8:12] + data[16 : min(size, 512)]
    return {listed[at : at + 4] for at in range(0, len(listed) - 3, 4)}


def without_metadata(data: bytes) -> bytes:
    """The same file, of the same length. Broken boxes stay: the decoder reports them."""
    meta = _first(data, range(len(data)), b"meta")
    items = _first(data, range(meta.start + 4, meta.stop), b"iinf")
    # ItemInfoBox and ItemInfoEntry, ISO/IEC 14496-12, 8.11.6: a version and flags, then a count.
    start = items.start + (6 if data[items.start : items.start + 1] == b"\0" else 8)
    found = [
        place
        for entry in _boxes(data, range(start, items.stop), b"infe")
        for place in (entry.start + (10 if data[entry.start : entry.start + 1] == b"\3" else 8),)
        if data[place : place + 4] in METADATA
    ]
    if not found:
        return data
    changed = bytearray(data)
    for place in found:
        changed[place : place + 4] = b"free"
    return bytes(changed)


def _first(data: bytes, within: range, kind: bytes) -> range:
    return next(iter(_boxes(data, within, kind)), range(len(data), len(data)))


def _boxes(data: bytes, within: range, kind: bytes) -> list[range]:
    """The ranges of the contents of all boxes of one kind at the top level of a part."""
    found, at, end = list[range](), within.start, within.stop
    for _ in range(MAX_BOXES):
        size, head = int.from_bytes(data[at : at + 4], "big"), 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        if at + 8 > end or 0 < size < head:
            break
        stop = min(at + size, end) if size else end
        if data[at + 4 : at + 8] == kind:
            found.append(range(at + head, stop))
        at = stop
    return found
