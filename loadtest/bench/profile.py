"""Where the CPU time of a request goes, as an image.

In: a checkout (this one, or an older one to compare with) and py-spy (`pip install py-spy`) on the
PATH. Out: microseconds per request of each part of the gateway, of tritonserver and of its backend,
for the tiny model with 32 requests under way, as JSON; and bars of several such files as one SVG.

    python -m loadtest bench profile measure --out docs/results/profile_after.json
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
from collections.abc import Callable
from html import escape
from pathlib import Path

from tyro.conf import Positional

from loadtest.bench import programs
from loadtest.bench.inputs import prepare
from loadtest.load import loop
from loadtest.load.engine import under_way
from loadtest.load.http_target import status_target
from loadtest.servers.launch import Server, gateway
from loadtest.servers.processes import EVENT_LOOP, GATEWAY, Watched
from loadtest.stats.samples import good
from loadtest.usage import UsageError

CONCURRENCY = 32
# Parts of the gateway and their patterns. The innermost frame of a sample that fits a pattern
# decides the part. The patterns fit older checkouts too, in which the server is one folder.
PARTS = {
    "decode and resize": r"\(PIL/|\(contracts/|\(server/(images|resizing)\b",
    "gRPC": r"\(grpc/|\(server/(engines/)?triton\b|\(server/(serving/)?batching\.py|^Thread\.run ",
    "metrics": r"\(prometheus_client/|\(server/(observability/)?(telemetry|metrics)\.py",
    "framework": r"\((fastapi|starlette)/",
    "HTTP": r"\(uvicorn/|\(server/(web/)?connections\.py",
    "gateway": r"\(server/(?!__main__)",
    "event loop and sockets": r"",
}
COLOURS = {
    "decode and resize": "#4c78a8",
    "gRPC": "#f58518",
    "metrics": "#eeca3b",
    "framework": "#e45756",
    "HTTP": "#72b7b2",
    "gateway": "#54a24b",
    "event loop and sockets": "#9d755d",
    "tritonserver": "#b279a2",
    "backend": "#ff9da6",
}


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
    text = json.dumps({part: round(value, 1) for part, value in found.items()}, indent=1)
    print(text)
    if out:
        out.write_text(text + "\n")
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
    del spent[EVENT_LOOP]  # this time is in the gateway's time already
    gateway_spent = spent.pop(GATEWAY)
    return {part: share * gateway_spent for part, share in shares.items()} | {
        TRITON_PARTS[role]: value for role, value in spent.items()
    }


def parts(stacks: str) -> dict[str, float]:
    """The share of each part in the samples.

    A line of `stacks` has the frames of a sample, outermost first, and a count.
    """
    counts: Counter[str] = Counter()
    for line in stacks.splitlines():
        frames, _, count = line.rpartition(" ")
        counts[part_of(frames.split(";"))] += int(count)
    return {part: counts[part] / counts.total() for part in PARTS}


def part_of(frames: list[str]) -> str:
    """The part that a sample belongs to."""
    for frame in reversed(frames):
        for part, pattern in PARTS.items():
            if pattern and re.search(pattern, frame):
                return part
    return "event loop and sockets"


def draw(bars: dict[str, dict[str, float]]) -> str:
    """An SVG with one bar for each of `bars`; the parts stand in their order, in microseconds."""
    left, width, height, gap = 80, 760, 46, 26
    scale = width / max(sum(bar.values()) for bar in bars.values())
    rows, y = [], 20
    for name, bar in bars.items():
        rows.append(f'<text x="{left - 10}" y="{y + 28}" text-anchor="end">{escape(name)}</text>')
        x = float(left)
        for part, value in bar.items():
            wide = value * scale
            rows.append(
                f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{height}" '
                f'fill="{COLOURS[part]}"><title>{part}: {value:.0f} µs</title></rect>'
            )
            if wide > 22:
                rows.append(
                    f'<text x="{x + wide / 2:.1f}" y="{y + 28}" text-anchor="middle" '
                    f'fill="white">{value:.0f}</text>'
                )
            x += wide
        rows.append(f'<text x="{x + 8:.1f}" y="{y + 28}">{sum(bar.values()):.0f} µs</text>')
        y += height + gap
    for index, (part, colour) in enumerate(COLOURS.items()):
        x, at = left + 270 * (index % 3), y + 10 + 24 * (index // 3)
        rows.append(f'<rect x="{x}" y="{at}" width="14" height="14" fill="{colour}"/>')
        rows.append(f'<text x="{x + 22}" y="{at + 12}">{part}</text>')
    body = "\n".join(rows)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 90} {y + 96}" '
        'font-family="sans-serif" font-size="15">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
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
    svg.write_text(draw({name: json.loads(Path(file).read_text()) for name, _, file in named}))
    return 0


COMMANDS: dict[str, Callable[..., int]] = {"measure": measure, "draw": draw_command}


if __name__ == "__main__":
    sys.exit(programs.run_commands(COMMANDS, __doc__, "profile"))
