"""What was freed goes back to the system, although something above it is still in use."""

import asyncio
import ctypes
import re
import subprocess
import sys
from pathlib import Path

import pytest

from server.process import memory
from tests.waiting import CHECKOUT

PIECES, BYTES = 2000, 32 * 2**10  # below the size from which the C library maps each by itself


def resident() -> int:
    """Bytes of this process in memory."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.findall(r"^VmRSS:\s+(\d+)", status, re.MULTILINE)[0])


def test_free_memory_below_used_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SECONDS", 0.01)
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = (ctypes.c_size_t,)
    libc.free.argtypes = (ctypes.c_void_p,)
    pieces = [libc.malloc(BYTES) for _ in range(PIECES)]
    for piece in pieces:
        ctypes.memset(piece, 1, BYTES)
    for piece in pieces[:-1]:
        libc.free(piece)
    before = resident()

    async def until_it_is_back() -> None:
        giving = asyncio.create_task(memory.give_back())
        async with asyncio.timeout(60):
            while before - resident() <= 0.8 * PIECES * BYTES:  # noqa: ASYNC110 - the kernel tells
                await asyncio.sleep(0.01)
        giving.cancel()

    try:
        asyncio.run(until_it_is_back())
    finally:
        libc.free(pieces[-1])


ROUNDS = """
import ctypes, resource, sys
from server.process import memory
if sys.argv[1] == "keep":
    memory.keep()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = (ctypes.c_size_t,)
libc.free.argtypes = (ctypes.c_void_p,)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for number in range(12):
    if number == 2:
        before = faults()
    pieces = [libc.malloc(2**20) for _ in range(5)]
    for piece in pieces:
        ctypes.memset(piece, 1, 2**20)
    for piece in pieces:
        libc.free(piece)
print(faults() - before)
"""


def test_memory_of_one_image_is_kept_for_the_next() -> None:
    """Told by the pages that the kernel has to give anew."""
    kept, returned = (
        int(subprocess.check_output([sys.executable, "-c", ROUNDS, how], cwd=CHECKOUT))
        for how in ("keep", "default")
    )
    assert kept < 100
    assert returned > 1000
