"""How long a cold start takes: from the command to the first right answer.

In: a checkout with its environments, an image. Out: seconds from the command that `make serve`
runs to an answer with status 200, for each of several starts.

    python -m loadtest bench start .bench/32px.jpg
"""

import contextlib
import http.client
import statistics
import sys
import time
from pathlib import Path

from tyro.conf import Positional

from loadtest.bench.programs import run
from loadtest.servers.launch import StackError, gateway

PATIENCE_SECONDS = 60.0


def start(image: bytes) -> float:
    """Start, send requests until one is answered, stop; returns the seconds up to the answer."""
    server = gateway("--with-triton", own_session=False)
    began = time.perf_counter()
    server.launch()
    try:
        while not answered(server.port, image):
            server.check()
            if time.perf_counter() - began > PATIENCE_SECONDS:
                raise StackError(f"no answer within {PATIENCE_SECONDS:.0f} s")
            time.sleep(0.01)
        return time.perf_counter() - began
    finally:
        server.stop()


def answered(port: int, image: bytes) -> bool:
    """Whether a request with an image gets status 200 now; raises StackError if it never will."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("POST", "/classify", image, {"Content-Type": "image/jpeg"})
        response = connection.getresponse()
        if response.status in {400, 413, 415, 422}:  # the image is at fault
            raise StackError(response.read().decode(errors="replace"))
        return response.status == 200
    return False


def main(image: Positional[Path], *, times: int = 5) -> int:
    """Measure and print.

    Args:
        image: A JPEG.
        times: How many starts.
    """
    took = [start(image.read_bytes()) for _ in range(times)]
    print(f"first answer after {statistics.median(took):.2f} s: {[round(s, 2) for s in took]}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
