"""What was freed goes back to the system, although something above it is still in use."""

import asyncio
import contextlib
import ctypes
import re
from pathlib import Path

import pytest

from server.process import memory

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

    async def some_time() -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(memory.give_back(), 0.5)

    asyncio.run(some_time())
    after = resident()
    libc.free(pieces[-1])
    assert before - after > 0.8 * PIECES * BYTES
