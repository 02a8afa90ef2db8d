"""The models of the paper's table on a GPU, bare, in 8 minutes: PyTorch, compiled too, and JAX.

In: a machine with an NVIDIA GPU, PyTorch and JAX; nothing is installed or downloaded. Out: results
of the kind `bare` (docs/results), one for each way, in bfloat16, each batch size of a sweep, with
the GPU's clocks, power, temperature and utilisation beside them. The models that matter most come
first, and nothing begins that may end after the time is over, so that whatever is there is whole; a
program that has not ended by then hangs, and is ended.

    python -m loadtest bench gpu --minutes 8
"""

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from loadtest import bare, results
from loadtest.bench import programs
from loadtest.machine.conditions import device_slug, now
from loadtest.machine.gpu import gpu_state
from loadtest.progress import note, show
from loadtest.report import bare as bare_report
from loadtest.report.page import Table, Text
from loadtest.servers.launch import StackError
from loadtest.usage import check_positive, results_folder

FIRST_SECONDS = 15.0  # the expected time of the first model
BETWEEN_SECONDS = 1.0  # between two readings of the GPU
# Models of the paper's table 2; models of similar cost stand together.
MODELS = ("mixer_b16", "vit_b16", "bit_r50x1", "mixer_s16", "vit_s16", "mixer_l16", "vit_l16")
# JAX always compiles, so that it is measured once.
WAYS = {"eager": ("pytorch",), "compiled": ("pytorch",), "jax": ("jax",)}


def main(
    *,
    minutes: float = 8.0,
    models: tuple[str, ...] = MODELS,
    batch_sizes: tuple[int, ...] = (1, 8, 32, 128, 512),
    precision: Literal["bfloat16", "float32"] = "bfloat16",
    seconds: float = 0.5,
    windows: int = 3,
    out: Path | None = None,
) -> int:
    """Measure until the time is over; the exit status is 1 if nothing was measured.

    Args:
        minutes: That all of it may take.
        models: Variants of `python -m export --list`, in the order in which they are measured.
        batch_sizes: Images at once.
        precision: What products are computed in.
        seconds: How long a window is.
        windows: How often each figure is measured; the median counts.
        out: A folder for the results; by default ~/.local/share/mixer-serving/results.
    """
    check_positive(minutes=(minutes,), seconds=(seconds,), windows=(windows,))
    folder = out or results_folder()
    end = time.monotonic() + 60 * minutes
    longest, written = FIRST_SECONDS, list[Path]()
    if not gpu_state():
        note("nvidia-smi tells of no GPU: what is measured is the CPU, without clocks and power")
    for model in models:
        for way, frameworks in WAYS.items():
            if time.monotonic() + longest > end:
                note(f"the time is over before {model}, {way}")
                break
            began = time.monotonic()
            name = f"bare_{now()}_{device_slug()}_{precision}_{way}_{model}.json"
            with watched() as states:
                try:
                    path = bare.run(
                        (model,), batch_sizes, precision=precision, compiled=way == "compiled",
                        seconds=seconds, windows=windows, out=folder / name, frameworks=frameworks,
                        until=end,
                    )  # fmt: skip
                except StackError as error:
                    note(f"{model}, {way}: {error}")
                    continue
                finally:
                    # Later models are larger, and compiling takes longer.
                    longest = max(longest, 1.5 * (time.monotonic() - began))
            result = json.loads(path.read_text())
            result["gpus"] = states
            results.write(path, result)
            written.append(path)
    for path in written:
        for block in bare_report.blocks(results.read(path)):
            match block:
                case Text():
                    print(block.text)
                case Table():
                    show(block)
        print(path)
    return 0 if written else 1


@contextlib.contextmanager
def watched() -> Iterator[list[dict[str, str]]]:
    """Readings of the first GPU, one each second while the block runs; none without a driver."""
    states: list[dict[str, str]] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set() and (now := gpu_state()):
            states.append(now[0])
            over.wait(BETWEEN_SECONDS)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield states
    finally:
        over.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(programs.run(main))
