"""Where the CPU time of a request goes, as an image.

In: a checkout (this one, or an older one to compare with) and py-spy (`pip install py-spy`) on the
PATH. Out: microseconds per request of each part of the gateway, of tritonserver and of its backend,
for the tiny model with 32 requests under way, as JSON; and bars of several such files as one SVG.

    python -m loadtest bench profile measure --out after.json
    python -m loadtest bench profile draw docs/profile.svg before=….json after=….json
"""

import asyncio
import json
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypedDict, cast

from tyro.conf import Positional

from loadtest.bench import programs
from loadtest.bench.inputs import prepare
from loadtest.load import loop
from loadtest.load.engine import under_way
from loadtest.load.http_target import status_target
from loadtest.machine import conditions
from loadtest.report import plots
from loadtest.servers.launch import Server, gateway
from loadtest.servers.processes import EVENT_LOOP, GATEWAY, Watched
from loadtest.stats.samples import good
from loadtest.usage import UsageError

CONCURRENCY = 32
# Parts of the gateway and their patterns. The innermost frame of a sample that fits a pattern
# decides the part. The patterns fit older checkouts too, in which the server is one folder.
PARTS = {
    "decode and resize": r"\(PIL/|\(contracts/|\(server/(images|resizing)\b",
    "gRPC": r"\(grpc/|\(server/(engines/)?triton\b|\(server/(serving/)?batching\.py",
    "metrics": r"\(prometheus_client/|\(server/(observability/)?(telemetry|metrics)\.py",
    "framework": r"\((fastapi|starlette)/",
    "HTTP": r"\(uvicorn/|\(server/(web/)?(connection|framing\.py|transport\.py)",
    # What only runs the event loop is no work of the gateway.
    "gateway": r"\(server/(?!__main__|(process/)?(program|gateway|workers|event_loop)\.py)",
    "event loop and sockets": r"",
}
OTHER_THREADS = "other threads"
THREAD_START = "_bootstrap_inner (threading.py"  # in the stack of each thread but the main one
# Okabe and Ito's palette, and three greys.
COLOURS = {
    "decode and resize": "#0072b2",
    "gRPC": "#d55e00",
    "metrics": "#b59f00",
    "framework": "#cc79a7",
    "HTTP": "#56b4e9",
    "gateway": "#009e73",
    "event loop and sockets": "#888888",
    OTHER_THREADS: "#bbbbbb",
    "tritonserver": "#e69f00",
    "backend": "#555555",
}


class Profile(TypedDict):
    """What `measure` writes."""

    cpu: str
    date: str
    commit: str  # of the checkout whose server ran
    microseconds: dict[str, float]  # of CPU per request, by part


# The roles of the other processes, as the image names them.
TRITON_PARTS = {"triton": "tritonserver", "model": "backend"}


def measure(
    *,
    checkout: Path = Path(),
    folder: Path = Path(".bench"),
    seconds: float = 8.0,
    py_spy: str = "py-spy",
    out: Path | None = None,
) -> int:
    """Profile a gateway.

    Args:
        checkout: Whose server to run.
        folder: Where models and images are, or are made, as those of `serving`.
        seconds: How long, first without the profiler and then with it.
        py_spy: The program.
        out: Write the JSON to this file too.
    """
    profiler = shutil.which(py_spy)
    if profiler is None:
        raise UsageError(f"there is no {py_spy!r}; pip install py-spy")
    prepare(folder, [])
    image = (folder / "32px.jpg").read_bytes()
    models = str((folder / "models").resolve())
    flags = ("--default-model", "tiny", "--with-triton", "--repository", models)
    with gateway(*flags, folder=checkout.resolve(), own_session=False) as server:
        found = loop.run(profiled(server, image, seconds, profiler))
    profile = Profile(
        cpu=f"{conditions.cpu_model()}, {conditions.cores()} cores",
        date=conditions.day(),
        commit=conditions.commit(checkout),
        microseconds={part: round(value, 1) for part, value in found.items()},
    )
    text = json.dumps(profile, indent=1)
    print(text)
    if out:
        out.write_text(text + "\n", encoding="utf-8")
    return 0


async def profiled(server: Server, image: bytes, seconds: float, profiler: str) -> dict[str, float]:
    """Microseconds of CPU per request of each part."""
    target = status_target(server.url, image, "?model=tiny")
    watched = Watched({GATEWAY: server.pid})
    async with under_way(target, CONCURRENCY) as samples:
        await asyncio.sleep(1)
        # The first measurement is without the profiler, which slows the gateway.
        begin, before = time.perf_counter(), watched.cpu_seconds()
        await asyncio.sleep(seconds)
        end, after = time.perf_counter(), watched.cpu_seconds()
        with tempfile.TemporaryDirectory() as folder:
            stacks = Path(folder, "stacks")
            recording = await asyncio.create_subprocess_exec(
                *(profiler, "record", "--pid", str(server.pid), "--format", "raw"),
                *("--rate", "400", "--duration", str(int(seconds)), "-o", stacks),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            await recording.wait()
            shares = parts(await asyncio.to_thread(stacks.read_text))
    target.close()
    requests = len(good([sample for sample in samples if begin < sample.done <= end]))
    spent = {role: 1e6 * (after[role] - before[role]) / requests for role in after}
    loop_spent, gateway_spent = spent.pop(EVENT_LOOP), spent.pop(GATEWAY)
    return (
        {part: share * loop_spent for part, share in shares.items()}
        | {OTHER_THREADS: gateway_spent - loop_spent}
        | {TRITON_PARTS[role]: value for role, value in spent.items()}
    )


def parts(stacks: str) -> dict[str, float]:
    """The share of each part in the samples of the main thread, which runs the event loop.

    A line of `stacks` has the frames of a sample, outermost first, and a count. py-spy takes most
    threads that wait inside a library for busy ones, so the samples of other threads say nothing;
    the system's own count of their CPU time does.
    """
    counts: Counter[str] = Counter()
    for line in stacks.splitlines():
        frames, _, count = line.rpartition(" ")
        if THREAD_START not in frames:
            counts[part_of(frames.split(";"))] += int(count)
    return {part: counts[part] / counts.total() for part in PARTS}


def part_of(frames: list[str]) -> str:
    """The part that a sample belongs to."""
    for frame in reversed(frames):
        for part, pattern in PARTS.items():
            if pattern and re.search(pattern, frame):
                return part
    return "event loop and sockets"


def draw(profiles: Mapping[str, Profile]) -> str:
    """An SVG with one bar for each profile; its parts stand in their order."""
    machines = {profile["cpu"] for profile in profiles.values()}
    if len(machines) > 1:
        raise UsageError(f"profiles of different machines: {'; '.join(sorted(machines))}")
    (machine,) = machines
    days = sorted({profile["date"][:10] for profile in profiles.values()})
    return plots.stacked(
        {
            f"{name}\n({profile['commit'][:7]})": profile["microseconds"]
            for name, profile in profiles.items()
        },
        COLOURS,
        "Where the CPU time of a request goes",
        f"{machine}; tiny model, {CONCURRENCY} requests under way · {', '.join(days)}",
        "CPU time of all servers per request, µs",
    )


def draw_command(svg: Positional[Path], bars: Positional[tuple[str, ...]]) -> int:
    """Draw what was measured.

    Args:
        svg: The image to write.
        bars: NAME=FILE of each bar, with the JSON of `measure`.
    """
    named = [bar.partition("=") for bar in bars]
    if not named or any(not equals for _, equals, _ in named):
        raise UsageError("bars: expected NAME=FILE, at least one")
    svg.write_text(draw({name: _read(Path(file)) for name, _, file in named}), encoding="utf-8")
    return 0


def _read(file: Path) -> Profile:
    try:
        found = dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{file}: no file of `measure`: {error}") from None
    if missing := sorted(Profile.__annotations__.keys() - found):
        raise UsageError(f"{file}: {', '.join(missing)} missing: expected a file of `measure`")
    return cast(Profile, found)


COMMANDS: dict[str, Callable[..., int]] = {"measure": measure, "draw": draw_command}


if __name__ == "__main__":
    sys.exit(programs.run_commands(COMMANDS, __doc__, "profile"))
