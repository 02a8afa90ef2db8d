"""A `Decoding` for tests, images for each of its lanes, and its processes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import psutil

from contracts.resizing import ResizeRule
from server.serving.buffers import Buffers
from server.serving.decoding import Decoding
from server.serving.images import cost
from server.serving.lanes import Decoded
from tests.photos import photo
from tests.server.serving.images.bombs.png import png

RULE = ResizeRule(32, 32)
BYTES = 2**28
PIXELS = 50_000_000
SMALL = photo(0)
# 4 million pixels of 16 bits and alpha: some 0.2 s, so that it goes to a process.
LARGE = png(2000, 2000, 16, 6, filtered=4)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 100))


@contextlib.asynccontextmanager
async def places(threads: int = 1, memory: int = BYTES) -> AsyncIterator[Decoding]:
    pool = Decoding(threads, memory, PIXELS)
    try:
        yield pool
    finally:
        await pool.close()


async def decode(
    pool: Decoding, data: bytes, client: str = "a", seconds: float = 1e6, kind: str = "JPEG"
) -> Decoded:
    kind = "PNG" if data.startswith(b"\x89PNG") else kind
    price = cost.price(kind, data, RULE)
    with Buffers(2**25, 2**28, 1.0).hold() as hold:
        async with asyncio.timeout(seconds):
            return await pool.decode(data, RULE, price, client=client, seconds=seconds, hold=hold)


def workers() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if "server.serving.images.worker" in child.cmdline()]
