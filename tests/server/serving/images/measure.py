"""What decoding costs, file by file, as ratios to an honest progressive JPEG of the same size.

In: the limit of pixels. Out: a table of every bomb, and of honest photographs in every format: what
the gateway says of each before any work, its CPU and memory where it is decoded, and its price.

    python -m tests.server.serving.images.measure --pixels 50000000 --folder bombs
"""

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from PIL import Image

from contracts.resizing import ResizeRule
from server.problems import Problem
from server.serving.images import cost
from server.serving.images.cost import Price
from server.serving.images.decoding import decode, kind_of, open_header
from tests.server.serving.images.bombs.every import bombs
from tests.server.serving.images.bombs.honest import honest
from tests.server.serving.images.bombs.parts import Generator
from tests.waiting import CHECKOUT

HONEST = "jpeg progressive"
RULE = ResizeRule(32, 32)


@dataclass(frozen=True)
class Measured:
    """CPU in seconds, peak in bytes beyond what the process had, and why it was not decoded."""

    cpu: float
    peak: int
    problem: str = ""


def status(field: str) -> int:
    """A line of /proc/self/status, in bytes."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


class Meter:
    """Decodes files, each in a child of a process that has never held an image."""

    def __init__(self, rule: ResizeRule = RULE) -> None:
        self._rule = rule
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.server.serving.images.measure", "--serve"],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what libtiff says of broken files
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            assert self._process.stdin
            self._process.stdin.close()

    def measured(self, data: bytes, max_pixels: int, repeat: int = 1) -> Measured:
        """The least CPU of some runs, since others on the machine only add; the highest peak."""
        assert self._process.stdin
        assert self._process.stdout
        rule = dataclasses.asdict(self._rule)
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            runs = []
            for _ in range(repeat):
                print(
                    json.dumps((file.name, max_pixels, rule)), file=self._process.stdin, flush=True
                )
                runs.append(Measured(*json.loads(self._process.stdout.readline())))
        cpu, peak = min(run.cpu for run in runs), max(run.peak for run in runs)
        return Measured(cpu, peak, runs[0].problem)


def serve() -> None:
    """What the process of a `Meter` does."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            name, max_pixels, rule = json.loads(line)
            data = Path(name).read_bytes()
            # A peak that was before counts for nothing.
            Path("/proc/self/clear_refs").write_text("5")
            before, began, problem = status("VmRSS"), time.process_time(), ""
            try:
                decode(open_header(data, max_pixels), ResizeRule(**rule))
            except Problem as error:
                problem = error.detail
            result = (time.process_time() - began, status("VmHWM") - before, problem)
            print(json.dumps(result), flush=True)
            os._exit(0)
        os.waitpid(child, 0)


@dataclass(frozen=True)
class Row:
    """One file: refused with a sentence before any work, or decoded."""

    name: str
    size: int
    pixels: int
    refusal: str
    price: Price | None
    measured: Measured | None


def judged(
    meter: Meter, pixels: int, files: dict[str, Generator], repeat: int = 1, rule: ResizeRule = RULE
) -> Iterator[Row]:
    """What becomes of each file where so many pixels are accepted."""
    for name, make in files.items():
        data = make()
        price, area = None, 0
        try:
            price = cost.price(kind_of(data), data, rule)
            area = price.width * price.height
            cost.check(price, pixels, rule)
        except Problem as problem:
            yield Row(name, len(data), area, problem.detail, price, None)
        else:
            yield Row(name, len(data), area, "", price, meter.measured(data, pixels, repeat))


def kept(folder: Path, name: str, make: Generator) -> bytes:
    """The file as it lies in the folder; written where it does not."""
    path = folder / name.replace(" ", "-").replace(":", "")
    if not path.exists():
        path.write_bytes(make())
    return path.read_bytes()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--pixels", type=int, default=50_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where files are, or are put")
    parser.add_argument("--only", default="", help="files whose names contain it")
    parser.add_argument("--all", action="store_true", help="decode what is refused as well")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    Image.MAX_IMAGE_PIXELS = None
    if options.serve:
        serve()
        return
    photos = honest(options.pixels)
    files = {**{f"honest {name}": make for name, make in photos.items()}, **bombs(options.pixels)}
    files = {name: make for name, make in files.items() if options.only in name}
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
        files = {name: partial(kept, options.folder, name, make) for name, make in files.items()}
    with Meter() as meter:
        unit = meter.measured(photos[HONEST](), options.pixels, 5).cpu
        print(f"honest progressive JPEG of {options.pixels} pixels: {unit:.3f} s of CPU")
        dearest = 0.0
        for row in judged(meter, options.pixels, files, options.repeat):
            took = row.measured
            if row.price is None or (took is None and not options.all):
                print(f"{row.name:46} {row.size:>9} refused: {row.refusal[:75]}", flush=True)
                continue
            if took is None:
                took = meter.measured(files[row.name](), options.pixels, options.repeat)
            else:
                dearest = max(dearest, took.cpu / unit)
            told = row.price.seconds / cost.honest(options.pixels, RULE)
            area = max(1, row.pixels)
            print(
                f"{row.name:46} {row.size:>9} {took.cpu / unit:5.2f} × (price {told:5.2f}) "
                f"{took.peak / area:6.1f} B/pixel (price {row.price.memory / area:6.1f}) "
                f"{'REFUSED' if row.refusal else ''} {took.problem[:60]}",
                flush=True,
            )
        print(f"dearest of those that are decoded: {dearest:.2f} ×")


if __name__ == "__main__":
    main()
