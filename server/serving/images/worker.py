"""A process that decodes one image after another, and that may be killed at any moment.

`python -m server.serving.images.worker`, started by serving/decoder_process.py. In, on standard
input: a job and the bytes of its image. Out, on standard output: the pixels, or what is wrong with
the image. Ends by itself where standard input ends.

The gateway kills it if an image takes more CPU than is allowed. If the gateway is gone, the kernel
kills it within two seconds of CPU more (RLIMIT_CPU, which counts whole seconds). The kernel gives
it no more memory than the image may take (RLIMIT_AS). When cores are scarce, it runs last; when
memory is scarce, it is killed first.
"""

import contextlib
import ctypes
import dataclasses
import io
import json
import math
import os
import re
import resource
import signal
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from contracts.resizing import ResizeRule
from server.problems import Problem, UnreadableImage
from server.serving.images.cost import honest
from server.serving.images.decoding import decode, open_header

LENGTH = struct.Struct("<II")  # of the JSON, and of the payload after it
# Memory beside that of an image: stacks, tables, what the allocator rounds up.
SLACK_BYTES = 96 * 2**20
# Freed memory of images up to this size is kept for the next image, within the slack: for an image
# of 12 megapixels the kernel takes longer to clear pages than to read the file.
KEPT_BYTES = 32 * 2**20
# What the process takes without an image: the interpreter, Pillow and numpy.
OWN_BYTES = 50 * 2**20
# The priority is below that of the threads that decode, which is below that of the event loop.
NICENESS = 19
# A progressive JPEG of a megapixel, whose time tells how fast this machine is.
CALIBRATION_SIDE = 1024
FASTEST = 0.1  # a lower value comes from a coarse clock, not from the machine


@dataclasses.dataclass(frozen=True)
class Job:
    """How the image is to be decoded; the limits are seconds of CPU and bytes."""

    rule: ResizeRule
    max_pixels: int
    seconds: float
    memory: int


@dataclasses.dataclass(frozen=True)
class Result:
    """`shape` of the pixels that follow as uint8, or the name and detail of the `problem`."""

    cpu: float
    pixels: int = 0  # width × height of the image
    shape: tuple[int, int, int] | None = None
    problem: str = ""
    detail: str = ""


def main() -> None:
    """Say how fast this machine is, then answer every job."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    _lower_priority()
    send(sink, {"speed": speed()})
    while (found := receive(source)) is not None:
        header, data = found
        rule = ResizeRule(**header.pop("rule"))
        job = Job(rule, **header)
        result, pixels = work(job, data)
        del data
        send(sink, dataclasses.asdict(result), pixels)
        del pixels
        if job.memory > KEPT_BYTES:
            _give_back()


def work(job: Job, data: bytes) -> tuple[Result, bytes]:
    """Decode within the limits; beyond the limit of CPU the process ends."""
    began, area = time.process_time(), 0
    try:
        with _limited(job):
            image = open_header(data, job.max_pixels)
            area = image.width * image.height
            pixels = decode(image, job.rule)
    except Problem as problem:
        problem.forget()
        return Result(time.process_time() - began, area, None, problem.name, problem.detail), b""
    except MemoryError:
        detail = f"decoding takes more than the {job.memory >> 20} MiB that its size tells"
        cpu = time.process_time() - began
        return Result(cpu, area, None, UnreadableImage.name, detail), b""
    cpu = time.process_time() - began
    return Result(cpu, area, (*pixels.shape[:2], 3)), pixels.tobytes()


def send(sink: BinaryIO, header: object, payload: bytes = b"") -> None:
    """Send one message."""
    text = json.dumps(header).encode()
    sink.write(LENGTH.pack(len(text), len(payload)) + text)
    sink.write(payload)
    sink.flush()


def receive(source: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """The next message; None at the end."""
    start = source.read(LENGTH.size)
    if len(start) < LENGTH.size:
        return None
    text, payload = LENGTH.unpack(start)
    return json.loads(source.read(text)), source.read(payload)


def speed() -> float:
    """The time of decoding here and now, relative to the machine of cost.py's factors."""
    random, side = np.random.default_rng(0), CALIBRATION_SIDE
    waves = Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8)).resize((side, side))
    grain = random.integers(-9, 10, (side, side, 3), np.int8)
    pixels = (np.asarray(waves, np.int16) + grain).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=85, progressive=True)
    rule, took = ResizeRule(32, 32), []
    for _ in range(3):
        began = time.process_time()
        decode(open_header(file.getvalue(), side**2), rule)
        took.append(time.process_time() - began)
    return max(FASTEST, max(took[1:]) / honest(side**2, rule))


@contextlib.contextmanager
def _limited(job: Job) -> Iterator[None]:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    own, most = resource.getrlimit(resource.RLIMIT_CPU)
    seconds = math.ceil(time.process_time() + job.seconds) + 1
    if own == resource.RLIM_INFINITY or seconds < own:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, most))
    if (mapped := _mapped()) is not None:
        resource.setrlimit(resource.RLIMIT_AS, (mapped + job.memory + SLACK_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        resource.setrlimit(resource.RLIMIT_CPU, (own, most))


def _mapped() -> int | None:
    """Bytes of address space that are in use; None where the system does not tell."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmSize:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return 1024 * int(found[1]) if found else None
    return None


def _lower_priority() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the gateway, which closes the pipe
    # A program that starts the gateway may leave the signal ignored or blocked; then it would end
    # nothing.
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGXCPU})
    os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _give_back() -> None:
    """Give free pages back to the system: the next image may be a small one."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
    if trim is not None:
        trim(0)


if __name__ == "__main__":
    main()
