"""What a gateway does at several times the load that it can carry.

In: the address of a running gateway and an image. Out: the peak, measured before and after with as
many requests under way as keep it busy; between, at a multiple of that rate, goodput, the latencies
of what was answered and of what was refused. Exits with 1 when a promise is broken.

    python -m loadtest bench overload http://127.0.0.1:8000 cat.jpg --times 3 --deadline 2
"""

import asyncio
import contextlib
import gc
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
from tyro.conf import Positional

from loadtest.bench.programs import run
from loadtest.load import loop
from loadtest.load.arrivals import ARRIVALS
from loadtest.load.engine import at_rate, peak
from loadtest.load.http_target import status_target
from loadtest.machine.conditions import cores
from loadtest.stats.samples import good, latencies

GOODPUT = 0.9  # of the peak
REFUSED_SECONDS = 0.05
# If this program sends later than this, the latencies are caused by itself.
LATE_SECONDS = 0.01


def main(
    url: Positional[str],
    image: Positional[Path],
    *,
    times: float = 3.0,
    seconds: float = 30.0,
    deadline: float = 2.0,
    concurrency: int = 32,
    arrivals: Literal["poisson", "even"] = "poisson",
) -> int:
    """Measure and print; 1 if a promise is broken.

    Args:
        url: Address of the gateway.
        image: A JPEG.
        times: The load, as a multiple of the peak.
        seconds: How long the overload lasts; each peak is half as long.
        deadline: X-Request-Timeout of each request, in seconds.
        concurrency: Requests under way that make the peak.
        arrivals: At random times, or evenly spaced.
    """
    data = image.read_bytes()
    return loop.run(
        measure(
            url,
            data,
            times=times,
            seconds=seconds,
            deadline=deadline,
            concurrency=concurrency,
            arrivals=arrivals,
        )
    )


async def measure(
    url: str,
    image: bytes,
    *,
    times: float,
    seconds: float,
    deadline: float,
    concurrency: int,
    arrivals: str,
) -> int:
    """Measure and print; 1 if a promise is broken."""
    # The load generator must be as undisturbed as on a machine of its own: it takes a high priority
    # where the system allows this, and does not collect garbage.
    gc.disable()
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)

    async def unloaded(for_seconds: float) -> float:
        target = status_target(url, image, deadline=deadline)
        found = good(await peak(target, concurrency, for_seconds))
        print(f"peak: {len(found) / for_seconds:.1f} per second, {latencies(found)}")
        target.close()
        return len(found) / for_seconds

    await unloaded(min(3.0, seconds))  # a warm-up
    # The peak is measured half before and half after the overload, since a machine's speed drifts.
    before = await unloaded(seconds / 2)
    target = status_target(url, image, deadline=deadline)
    own = time.process_time()
    over = await at_rate(target, ARRIVALS[arrivals](times * before, 0), seconds)
    own = (time.process_time() - own) / seconds / cores()
    target.close()
    await asyncio.sleep(2 * deadline)  # Triton may still compute requests that got 504
    best = (before + await unloaded(seconds / 2)) / 2
    answered = good(over)
    refused = [s for s in over if s.answered.status == 429]
    goodput = len(answered) / seconds
    statuses = dict(Counter(sample.answered.status for sample in over))
    print(f"{times:g}× for {seconds:g} s: {statuses}")
    print(f"goodput: {goodput:.1f} per second, {goodput / best:.0%} of the peak")
    print(f"answered: {latencies(answered)}; the deadline is {1000 * deadline:.0f} ms")
    print(f"refused: {latencies(refused)}")
    print(f"this program: {own:.0%} of the cores' time, which the gateway did not have")
    late = max(sample.sent - sample.due for sample in over)
    if late > LATE_SECONDS:
        print(f"NOT TRUSTWORTHY: this program was up to {1000 * late:.0f} ms late; free a core")
    slowest = max((sample.done - sample.due for sample in refused), default=0.0)
    p99 = float(np.percentile([s.seconds for s in answered], 99)) if answered else np.inf
    kept = {
        f"goodput of {GOODPUT:.0%} of the peak": goodput >= GOODPUT * best,
        "p99 of the answered within the deadline": p99 <= deadline,
        f"every refusal within {1000 * REFUSED_SECONDS:.0f} ms": slowest < REFUSED_SECONDS,
    }
    for promise, is_kept in kept.items():
        print(f"{'kept' if is_kept else 'BROKEN'}: {promise}")
    return 0 if all(kept.values()) else 1


if __name__ == "__main__":
    sys.exit(run(main))
