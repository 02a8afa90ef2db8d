"""Whether a gateway leaks memory, descriptors, threads or tasks.

In: an image. Out: the peak, then for each minute at a share of it what the gateway and its Triton
hold: memory, descriptors, threads, tasks of the event loop. It starts both. Each minute begins with
a burst of connections, as a machine makes them that stands still for a second: what a burst leaves
must not add up. Exits with 1 if a request failed, memory grew after the first minute, or something
was kept when the load was over.

    python -m loadtest bench soak cat.jpg --minutes 10 --share 0.8
"""

import asyncio
import dataclasses
import re
import statistics
import sys
from collections import Counter
from pathlib import Path

from tyro.conf import Positional

from loadtest.bench.programs import run
from loadtest.load import loop
from loadtest.load.arrivals import poisson
from loadtest.load.engine import Sample, at_rate, peak
from loadtest.load.http_target import status_target
from loadtest.servers.launch import Server, gateway, get
from loadtest.servers.processes import ROLES, program, tree
from loadtest.stats.samples import good, latencies
from loadtest.usage import UsageError

DRIFT = 0.05
PEAK_SECONDS = 10.0
REST_SECONDS = 5.0
LOOKS = 30  # readings in a minute, one every two seconds


@dataclasses.dataclass
class Held:
    """The resources that the processes hold at one moment; memory is in MiB."""

    gateway: float
    triton: float
    descriptors: float
    threads: float
    tasks: float


def held(server: Server) -> Held:
    """Read the resources: tasks from the gateway, all others from the kernel."""
    found = Held(0.0, 0.0, 0, 0, 0)
    for process in tree(server.pid):
        with process.oneshot():
            mebibytes = process.memory_info().rss / 2**20
            if program(process) in ROLES:
                found.triton += mebibytes
            else:
                found.gateway += mebibytes
            found.descriptors += process.num_fds()
            found.threads += process.num_threads()
    _, metrics = get(f"{server.url}/metrics")
    found.tasks = int(re.findall(r"^mixer_tasks (\d+)", metrics.decode(), re.M)[0])
    return found


def main(
    image: Positional[Path],
    *,
    model: str = "mixer_cifar10",
    minutes: int = 10,
    share: float = 0.8,
    burst: int = 500,
    workers: int = 1,
    deadline: float = 30.0,
    concurrency: int = 32,
) -> int:
    """Measure and print; 1 if something was kept.

    Args:
        image: A JPEG.
        model: Which one is asked.
        minutes: How long; the first minute does not count.
        share: Of the peak.
        burst: Requests at once, at the beginning of each minute.
        workers: Processes of the gateway.
        deadline: X-Request-Timeout of each request, in seconds.
        concurrency: Requests under way that make the peak.
    """
    if minutes < 2:
        raise UsageError("--minutes should be 2 or more: the first does not count")
    flags = ("--with-triton", "--default-model", model, "--workers", str(workers))
    with gateway(*flags, own_session=False) as server:
        found = loop.run(
            measure(
                server,
                image.read_bytes(),
                minutes=minutes,
                share=share,
                burst=burst,
                deadline=deadline,
                concurrency=concurrency,
            )
        )
    return report(*found)


async def measure(
    server: Server,
    image: bytes,
    *,
    minutes: int,
    share: float,
    burst: int,
    deadline: float,
    concurrency: int,
) -> tuple[list[Sample], Held, list[Held], Held]:
    """The samples of the load, and the resources held before, in each minute, and after."""
    target = status_target(server.url, image, deadline=deadline)
    rate = share * len(good(await peak(target, concurrency, PEAK_SECONDS))) / PEAK_SECONDS
    target.close()
    await asyncio.sleep(REST_SECONDS)
    before = await asyncio.to_thread(held, server)
    print(f"{rate:.0f} requests per second; at rest: {before}", flush=True)
    target = status_target(server.url, image, deadline=deadline)
    load = asyncio.create_task(at_rate(target, poisson(rate, 0), 60 * minutes))
    bursts: list[Sample] = []
    each_minute: list[Held] = []
    for minute in range(minutes):
        looks: list[Held] = []
        bursts += await at_rate(target, [0.0] * burst, 1.0)
        while not load.done() and len(looks) < LOOKS:
            looks.append(await asyncio.to_thread(held, server))
            await asyncio.sleep(2)
        each_minute.append(middle(looks))
        print(f"minute {minute + 1}: {each_minute[-1]}", flush=True)
    samples = await load
    target.close()
    await asyncio.sleep(REST_SECONDS)
    after = await asyncio.to_thread(held, server)
    print(f"at rest again: {after}")
    return samples + bursts, before, each_minute, after


def report(samples: list[Sample], before: Held, minutes: list[Held], after: Held) -> int:
    """Print which promises were kept; 1 if one was not."""
    statuses = Counter(sample.answered.status for sample in samples)
    print(f"{dict(statuses)}, {latencies(samples)}")
    drifts = {
        name: getattr(minutes[-1], name) / getattr(minutes[1], name) - 1
        for name in ("gateway", "triton")
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


def middle(looks: list[Held]) -> Held:
    """The median of each resource over the readings."""
    columns = zip(*map(dataclasses.astuple, looks), strict=True)
    return Held(*map(statistics.median, columns))


if __name__ == "__main__":
    sys.exit(run(main))
