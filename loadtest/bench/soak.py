"""Whether a gateway keeps what it should have given back.

In: an image. Out: the peak, then for each minute at a share of it what the gateway and its Triton
hold: memory, descriptors, threads, tasks of the event loop. It starts both. Each minute begins with
a burst of connections, as a machine makes them that stands still for a second: what a burst leaves
must not add up. Exits with 1 if a request failed, memory grew after the first minute, or something
was kept when the load was over.

    python -m loadtest.bench.soak cat.jpg --minutes 10 --share 0.8
"""

import argparse
import asyncio
import re
import statistics
import sys
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import uvloop

from loadtest.bench.load import Clients, at_rate, peak, percentiles
from loadtest.bench.served import Served, family, served

DRIFT = 0.05
PEAK_SECONDS = 10.0
REST_SECONDS = 5.0


@dataclass
class Held:
    """What the processes hold at one moment; memory in MiB."""

    gateway: float
    triton: float
    descriptors: int
    threads: int
    tasks: int


def held(served: Served) -> Held:
    """Ask the kernel, and the gateway for its tasks."""
    memory = {"gateway": 0.0, "triton": 0.0}
    descriptors = threads = 0
    for pid, line in family(served.pid).items():
        status = Path(f"/proc/{pid}/status").read_text()
        kibibytes, count = (
            int(re.findall(rf"^{name}:\s+(\d+)", status, re.M)[0]) for name in ("VmRSS", "Threads")
        )
        memory["triton" if "triton" in line.split()[0] else "gateway"] += kibibytes / 1024
        descriptors += len(list(Path(f"/proc/{pid}/fd").iterdir()))
        threads += count
    with urllib.request.urlopen(f"{served.url}/metrics", timeout=10) as response:  # noqa: S310
        found = re.findall(r"^mixer_tasks (\d+)", response.read().decode(), re.M)
    return Held(memory["gateway"], memory["triton"], descriptors, threads, int(found[0]))


async def measure(options: argparse.Namespace) -> int:
    """Measure and print; 1 if something was kept."""
    picture = options.picture.read_bytes()
    flags = ("--with-triton", "--default-model", options.model, "--workers", str(options.workers))
    async with served(*flags) as gateway:
        clients = Clients(gateway.url, picture, options.deadline)
        rate = options.share * await peak(clients, PEAK_SECONDS, options.concurrency)
        clients.close()
        await asyncio.sleep(REST_SECONDS)
        before = await asyncio.to_thread(held, gateway)
        print(f"{rate:.0f} requests per second; at rest: {before}", flush=True)
        clients = Clients(gateway.url, picture, options.deadline)
        load = asyncio.create_task(at_rate(clients, rate, 60 * options.minutes))
        minutes: list[list[Held]] = []
        for minute in range(options.minutes):
            minutes.append([])
            await asyncio.gather(*(clients.ask() for _ in range(options.burst)))
            while not load.done() and len(minutes[-1]) < 30:
                minutes[-1].append(await asyncio.to_thread(held, gateway))
                await asyncio.sleep(2)
            print(f"minute {minute + 1}: {middle(minutes[-1])}", flush=True)
        await load
        clients.close()
        await asyncio.sleep(REST_SECONDS)
        after = await asyncio.to_thread(held, gateway)
        print(f"at rest again: {after}")
    statuses = Counter(status for status, _ in clients.answers)
    print(f"{dict(statuses)}, {percentiles([seconds for _, seconds in clients.answers])}")
    first, last = middle(minutes[1]), middle(minutes[-1])
    drifts = {
        name: getattr(last, name) / getattr(first, name) - 1 for name in ("gateway", "triton")
    }
    for name, drift in drifts.items():
        print(f"memory of {name}: {drift:+.1%} from the second minute to the last")
    kept = {
        "only 200, and where others took the cores, 429 and 504": set(statuses) <= {200, 429, 504},
        f"memory within {DRIFT:.0%}": all(drift <= DRIFT for drift in drifts.values()),
        "no descriptor was kept": after.descriptors <= before.descriptors,
        "no thread was kept": after.threads <= before.threads,
        "no task was kept": after.tasks <= before.tasks,
    }
    for promise, is_kept in kept.items():
        print(f"{'kept' if is_kept else 'BROKEN'}: {promise}")
    return 0 if all(kept.values()) else 1


def middle(samples: list[Held]) -> Held:
    """The median of each."""
    names = ("gateway", "triton", "descriptors", "threads", "tasks")
    return Held(*(statistics.median(getattr(held, name) for held in samples) for name in names))


def main() -> int:
    """Read the command line, measure; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.soak", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("image", type=Path, help="a JPEG")
    parser.add_argument("--model", default="mixer_cifar10")
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--share", type=float, default=0.8, help="of the peak")
    parser.add_argument("--burst", type=int, default=500, help="requests at once, each minute")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--deadline", type=float, default=30.0, help="X-Request-Timeout, seconds")
    parser.add_argument("--concurrency", type=int, default=32, help="requests that make the peak")
    options = parser.parse_args()
    if options.minutes < 2:
        parser.error("--minutes should be 2 or more: the first is not counted")
    return uvloop.run(measure(options))


if __name__ == "__main__":
    sys.exit(main())
