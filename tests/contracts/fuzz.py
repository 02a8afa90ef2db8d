"""A mutational fuzz of the way from a file to pixels.

    nice -n 10 python -m tests.contracts.fuzz --minutes 10 [--seed N] [--keep FOLDER]

In: the corpus of odd files, and the hostile ones. Out: counts; in FOLDER, each input that ended the
process, raised anything but `ImageError`, failed in this project's own code, or took more than a
second. Exits with 1 if there is one. The work is done by a child process, so that a crash of a
decoder is seen and the next one goes on.
"""

import argparse
import os
import signal
import struct
import sys
import time
import traceback
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

from contracts.images.decoding import read
from contracts.images.errors import ImageError
from contracts.resizing import ResizeRule
from tests.contracts.images.corpus import depths, metadata, strangers, transparency
from tests.server.web.hostile_images import odd

LIMIT = 50_000_000  # pixels, the gateway's default
LARGEST_SEED = 40_000  # bytes: larger ones are slow to mutate and say no more
SLOW = 1.0  # seconds of CPU
RULES = (
    ResizeRule(32, 32),
    ResizeRule(24, 24, "shortest", "bicubic", True, 0.875, "torchvision"),
    ResizeRule(16, 20, antialias=False),
)
NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**32 - 1)
OWN_CODE = str(Path(__file__).parents[2] / "contracts")


def seeds() -> list[bytes]:
    """Files to start from."""
    groups = (transparency, depths, metadata, strangers)
    files = [case.data for group in groups for case in group.cases()]
    files += [case.body for case in odd() if not case.content_type.startswith("multipart")]
    return [data for data in files if 16 < len(data) <= LARGEST_SEED]


def mutated(files: list[bytes], random: np.random.Generator) -> bytes:
    """One of the files with 1 to 8 changes."""
    data = bytearray(files[random.integers(len(files))])
    for _ in range(random.integers(1, 9)):
        if len(data) < 16:
            break
        # The head is where the meaning is.
        end = len(data) if random.random() < 0.5 else min(len(data), 128)
        at = int(random.integers(end))
        match random.integers(7):
            case 0:
                data[at] ^= 1 << int(random.integers(8))
            case 1:
                data[at] = int(random.integers(256))
            case 2:
                size = int(random.choice([1, 2, 4]))
                number = NUMBERS[random.integers(len(NUMBERS))] % 256**size
                order = "big" if random.random() < 0.5 else "little"
                data[at : at + size] = number.to_bytes(size, order)
            case 3:
                del data[at : at + int(random.integers(1, 65))]
            case 4:
                start = int(random.integers(len(data)))
                data[at:at] = data[start : start + int(random.integers(1, 129))]
            case 5:
                other = files[random.integers(len(files))]
                start = int(random.integers(len(other)))
                data[at : at + 32] = other[start : start + int(random.integers(1, 513))]
            case _:
                del data[max(16, at) :]
    return _with_checksums(bytes(data)) if random.random() < 0.7 else bytes(data)


def _with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have right checksums again, so that what is in them is looked at."""
    if data[:4] != b"\x89PNG":
        return data
    whole, at = bytearray(data), 8
    while at + 12 <= len(whole):
        end = at + 8 + int.from_bytes(whole[at : at + 4], "big")
        if end + 4 > len(whole):
            break
        whole[end : end + 4] = zlib.crc32(whole[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(whole)


def verdict(data: bytes, rule: ResizeRule) -> str:
    """What became of one file: "read", the kind of refusal, or a fault that begins with "!"."""
    began = time.process_time()
    try:
        shape = read(data, rule, LIMIT).shape
        found = "read" if shape == (rule.height, rule.width, 3) else f"!shape {shape}"
    except ImageError as error:
        found = type(error).__name__
        cause = error.__cause__
        frames = traceback.extract_tb(cause.__traceback__) if cause else []
        # This is how a TIFF is told whose directory lies beyond its end.
        meant = isinstance(cause, struct.error | OverflowError)
        if frames and frames[-1].filename.startswith(OWN_CODE) and not meant:
            found = f"!own code: {cause!r}"
    except Exception as error:
        found = f"!foreign: {error!r}"
    took = time.process_time() - began
    return f"!slow: {took:.2f} s, {found}" if took > SLOW else found


def work(seed: int, until: float, last: Path, keep: Path) -> None:
    """Fuzz until then; the input at work lies in `last`, so that a crash leaves it there."""
    random, files, counts = np.random.default_rng(seed), seeds(), Counter[str]()
    faults = 0
    while time.monotonic() < until:
        data = mutated(files, random)
        last.write_bytes(data)
        found = verdict(data, RULES[random.integers(len(RULES))])
        counts[found.partition(":")[0]] += 1
        if found.startswith("!"):
            faults += 1
            name = keep / f"{seed}-{faults}.bin"
            name.write_bytes(data)
            print(f"{name}: {found}", flush=True)
    print(f"{counts.total()} files: {dict(counts)}", flush=True)
    sys.exit(bool(faults))


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz"))
    options = parser.parse_args()
    options.keep.mkdir(parents=True, exist_ok=True)
    until, seed, faults = time.monotonic() + 60 * options.minutes, options.seed, 0
    while time.monotonic() < until - 1:
        last = options.keep / f"{seed}-last.bin"
        child = os.fork()
        if child == 0:
            work(seed, until, last, options.keep)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            crash = options.keep / f"{seed}-crash.bin"
            last.rename(crash)
            print(f"{crash}: ended by {signal.Signals(os.WTERMSIG(status)).name}", flush=True)
        else:
            last.unlink(missing_ok=True)
        faults += status != 0
        seed += 1
    return min(1, faults)


if __name__ == "__main__":
    sys.exit(main())
