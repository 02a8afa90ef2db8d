"""How long a cold start takes: from the command to the first right answer.

In: a checkout with its environments, an image. Out: seconds from the command that `make serve`
runs to an answer with status 200, for each of several starts.

    python -m loadtest.bench.start .bench/32px.jpg
"""

import argparse
import contextlib
import http.client
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

PATIENCE_SECONDS = 60.0


def start(picture: bytes) -> float:
    """Start, ask until there is an answer, stop; the seconds up to the answer."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    began = time.perf_counter()
    server = subprocess.Popen(  # noqa: S603 - this project's own
        [sys.executable, "-m", "server", "--with-triton", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not answered(port, picture):
            if time.perf_counter() - began > PATIENCE_SECONDS or server.poll() is not None:
                sys.exit("no answer; start the server by hand to see why")
            time.sleep(0.01)
        return time.perf_counter() - began
    finally:
        server.terminate()
        server.wait()


def answered(port: int, picture: bytes) -> bool:
    """Whether an image gets an answer now."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("POST", "/classify", picture, {"Content-Type": "image/jpeg"})
        return connection.getresponse().status == 200
    return False


def main() -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.start", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("image", type=Path)
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    picture = options.picture.read_bytes()
    took = [start(picture) for _ in range(options.times)]
    print(f"first answer after {statistics.median(took):.2f} s: {[round(s, 2) for s in took]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
