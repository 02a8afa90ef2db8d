"""web/paced.py: at most once a second, and never anything old."""

import asyncio
import itertools
import time

from server.web.paced import Paced


def test_it_is_made_at_most_once_a_second_and_never_old() -> None:
    made: list[float] = []
    asked: dict[float, float] = {}

    def make() -> bytes:
        made.append(time.monotonic())
        return str(made[-1]).encode()

    async def ask(paced: Paced) -> None:
        began = time.monotonic()
        asked[began] = float(await paced.latest())

    async def run() -> int:
        """How many have asked."""
        paced = Paced(make)
        tasks: list[asyncio.Task[None]] = []
        for _ in range(250):
            tasks.append(asyncio.create_task(ask(paced)))
            await asyncio.sleep(0.01)
        # Who gives up does not spoil it for the others. One who was answered at once cannot.
        while not tasks[-1].cancel():
            tasks.append(asyncio.create_task(ask(paced)))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        return len(tasks)

    began = time.monotonic()
    count = asyncio.run(run())
    assert all(later - earlier >= 0.99 for earlier, later in itertools.pairwise(made))
    assert 3 <= len(made) <= 2 + (time.monotonic() - began) / 0.99
    assert len(asked) == count - 1
    assert all(got >= began for began, got in asked.items())
