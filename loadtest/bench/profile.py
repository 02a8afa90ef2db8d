"""Where the CPU time of a request goes, as an image.

In: a checkout (this one, or an older one to compare with) and py-spy (`pip install py-spy`) on the
PATH. Out: microseconds per request of each part of the gateway, of tritonserver and of its backend,
for the tiny model with 32 requests under way, as JSON; and bars of several such files as one SVG.

    python -m loadtest.bench.profile measure --out docs/results/profile_after.json
    python -m loadtest.bench.profile draw docs/profile.svg before=….json after=….json
"""

import argparse
import asyncio
import json
import re
import shutil
import sys
import tempfile
from collections import Counter
from html import escape
from pathlib import Path

import uvloop

from loadtest.bench.inputs import prepare
from loadtest.bench.load import Load, single
from loadtest.bench.processes import running

CONCURRENCY = 32
# Parts of the gateway, by the innermost frame of a sample that one of the patterns fits.
PARTS = {
    "decode and resize": r"\(PIL/|\((server|contracts)/images/|\(contracts/resizing\.py",
    "gRPC": r"\(grpc/|\(server/(triton|batching)\.py|^Thread\.run ",
    "metrics": r"\(prometheus_client/|\(server/(telemetry|metrics)\.py",
    "framework": r"\((fastapi|starlette)/",
    "HTTP": r"\(uvicorn/|\(server/connections\.py",
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


async def measure(options: argparse.Namespace) -> int:
    """Profile a running gateway; the exit status."""
    py_spy = shutil.which(options.py_spy)
    if py_spy is None:
        print(f"there is no {options.py_spy!r}; pip install py-spy", file=sys.stderr)
        return 1
    prepare(options.folder, [])
    request = single("/classify?model=tiny", (options.folder / "32px.jpg").read_bytes())
    models = str((options.folder / "models").resolve())
    flags = ("server", "--port", "0", "--default-model", "tiny", "--with-triton", "--repository")
    with tempfile.TemporaryDirectory() as folder:
        log, stacks = Path(folder, "log"), Path(folder, "stacks")
        async with running("gateway", log, *flags, models, folder=options.checkout) as gateway:
            url = await gateway.address("/readyz")
            async with Load(url, [request], CONCURRENCY) as load:
                await asyncio.sleep(1)
                # First without the profiler: it slows what it looks at.
                load.begin()
                before = gateway.cpu()
                await asyncio.sleep(options.seconds)
                after, requests = gateway.cpu(), len(load.answers.seconds)
                recording = await asyncio.create_subprocess_exec(
                    *(py_spy, "record", "--pid", str(gateway.pid), "--format", "raw"),
                    *("--rate", "400", "--duration", str(int(options.seconds)), "-o", stacks),
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL,
                )
                await recording.wait()
            shares = parts(await asyncio.to_thread(stacks.read_text))
    spent = {role: 1e6 * (after[role] - before[role]) / requests for role in after}
    gateway_spent = spent.pop("gateway")
    result = {part: share * gateway_spent for part, share in shares.items()} | spent
    text = json.dumps({part: round(value, 1) for part, value in result.items()}, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
    return 0


def parts(stacks: str) -> dict[str, float]:
    """The share of each part in the samples; a line has frames, outermost first, and a count."""
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
    """An SVG with one bar for each of `bars`, the parts in their order, in microseconds."""
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


def main() -> int:
    """Read the command line, measure or draw; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.profile", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure", help="profile a gateway")
    measuring.add_argument("--checkout", type=Path, default=Path(), help="whose server to run")
    measuring.add_argument("--folder", type=Path, default=Path(".bench"), help="as bench.serving")
    measuring.add_argument("--seconds", type=float, default=8.0)
    measuring.add_argument("--py-spy", default="py-spy", help="the program")
    measuring.add_argument("--out", type=Path, help="write the JSON here")
    drawing = commands.add_parser("draw", help="draw what was measured")
    drawing.add_argument("svg", type=Path)
    drawing.add_argument("bars", nargs="+", metavar="NAME=FILE", help="JSON of `measure`")
    options = parser.parse_args()
    if options.command == "measure":
        return uvloop.run(measure(options))
    named = (bar.partition("=") for bar in options.bars)
    bars = {name: json.loads(Path(file).read_text()) for name, _, file in named}
    options.svg.write_text(draw(bars))
    return 0


if __name__ == "__main__":
    sys.exit(main())
