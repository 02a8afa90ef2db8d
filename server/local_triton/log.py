"""What tritonserver prints, passed on to our logging.

In: the output of one tritonserver, line by line. Out: log records, and its last errors. The form
of the lines is that of Triton 2.51; one in another form is logged as it is.
"""

import asyncio
import logging
import re
from collections import deque

log = logging.getLogger(__name__)

# Triton's "2026-01-31T12:00:00Z I 4711 file.cc:12] text", its stubs' and gRPC's
# "E0131 12:00:00.000000 4711 file.cc:12] text".
LINE = re.compile(r"^(?:\S+Z ([IWEF])|([IWEF])\d{4} \S+)\s+\d+ \S+:\d+\]\s*(.*)$")
LEVELS = {"I": logging.DEBUG, "W": logging.WARNING, "E": logging.ERROR, "F": logging.CRITICAL}
# Lines that appear on every machine without a GPU, and lines that only repeat another one.
NOISE = re.compile(
    r"CudaDriverHelper has not been initialized|pinned system memory|failed to load all models"
    r"|Failed to create instance"
)


class TritonLog:
    """The log of one tritonserver, from its start to its end."""

    def __init__(self) -> None:
        self.errors: deque[str] = deque(maxlen=5)
        self.unformed: deque[str] = deque(maxlen=2)  # the last lines in another form

    async def read(self, stream: asyncio.StreamReader) -> None:
        """Read until tritonserver and all its stubs have closed their output."""
        rest = b""
        while chunk := await stream.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self.feed(line.decode(errors="replace"))

    def feed(self, line: str) -> None:
        """Take one line."""
        parts = LINE.match(line)
        if parts is None:  # tables, and what libraries print
            if line.strip():
                log.debug("%s", line)
            if line.strip("|+- "):
                self.unformed.append(line.strip())
            return
        text = parts[3].strip('" ').replace("\\n", "\n").partition("\n\nAt:\n")[0]
        level = logging.DEBUG if NOISE.search(text) else LEVELS[parts[1] or parts[2]]
        log.log(level, "%s", text)
        if level >= logging.ERROR:
            self.errors.append(text)
