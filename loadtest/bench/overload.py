"""What a gateway does at several times the load that it can carry.

In: the address of a running gateway and an image. Out: the peak, measured before and after
with as many requests under way as keep it busy; between, at a fixed rate of a multiple of that,
goodput, the latencies of what was answered and of what was refused. Exits with 1 when a promise is
broken.

    python -m loadtest.bench.overload http://127.0.0.1:8000 cat.jpg --times 3 --deadline 2
"""

import argparse
import asyncio
import contextlib
import gc
import os
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import uvloop

from loadtest.bench.load import Clients, at_rate, peak, percentiles
from loadtest.machine.conditions import cores

GOODPUT = 0.9  # of the peak
REFUSED_SECONDS = 0.05
# Beyond it the latencies are this program's own.
LATE_SECONDS = 0.01


async def unloaded(options: argparse.Namespace, picture: bytes) -> float:
    """The peak; half of it is measured after the overload, since a machine's speed drifts."""
    clients = Clients(options.url, picture, options.deadline)
    best = await peak(clients, options.seconds / 2, options.concurrency)
    print(f"peak: {best:.1f} per second, {percentiles([s for _, s in clients.answers])}")
    clients.close()
    return best


async def measure(options: argparse.Namespace) -> int:
    """Measure and print; 1 if a promise is broken."""
    # As if it had a machine of its own: it goes first where it may, and does not look for garbage.
    gc.disable()
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    picture = options.picture.read_bytes()
    warm = Clients(options.url, picture, options.deadline)
    await peak(warm, min(3.0, options.seconds), options.concurrency)
    before = await unloaded(options, picture)
    over = Clients(options.url, picture, options.deadline)
    own = time.process_time()
    late = await at_rate(over, options.times * before, options.seconds)
    own = (time.process_time() - own) / options.seconds / cores()
    await asyncio.sleep(2 * options.deadline)  # what got 504 may still be worked on
    after = await unloaded(options, picture)
    best = (before + after) / 2
    good = [seconds for status, seconds in over.answers if status == 200]
    refused = [seconds for status, seconds in over.answers if status == 429]
    goodput = len(good) / options.seconds
    print(
        f"{options.times:g}× for {options.seconds:g} s: {dict(Counter(s for s, _ in over.answers))}"
    )
    print(f"goodput: {goodput:.1f} per second, {goodput / best:.0%} of the peak")
    print(f"answered: {percentiles(good)}; the deadline is {1000 * options.deadline:.0f} ms")
    print(f"refused: {percentiles(refused)}")
    print(f"this program: {own:.0%} of the cores' time, which the gateway did not have")
    if late > LATE_SECONDS:
        print(f"NOT TRUSTWORTHY: this program was up to {1000 * late:.0f} ms late; free a core")
    kept = {
        f"goodput of {GOODPUT:.0%} of the peak": goodput >= GOODPUT * best,
        "p99 of the answered within the deadline": bool(good)
        and float(np.percentile(good, 99)) <= options.deadline,
        f"every refusal within {1000 * REFUSED_SECONDS:.0f} ms": max(refused, default=0)
        < REFUSED_SECONDS,
    }
    for promise, is_kept in kept.items():
        print(f"{'kept' if is_kept else 'BROKEN'}: {promise}")
    return 0 if all(kept.values()) else 1


def main() -> int:
    """Read the command line, measure; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.overload", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("url", help="address of the gateway")
    parser.add_argument("image", type=Path, help="a JPEG")
    parser.add_argument("--times", type=float, default=3.0, help="of the peak")
    parser.add_argument("--seconds", type=float, default=30.0, help="of overload; a peak has half")
    parser.add_argument("--deadline", type=float, default=2.0, help="X-Request-Timeout, seconds")
    parser.add_argument("--concurrency", type=int, default=32, help="requests that make the peak")
    return uvloop.run(measure(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
