"""The health check of a Triton container: a real inference on every model, over HTTP on loopback.

In: the Triton of this container. Out: exit status 0 when each model that is ready answers a black
image with probabilities that sum to 1, or at least goes on answering others; else 1, and the
reason on stderr. Triton's own health is not believed: it says ready while a backend is dead.
Docker's restart policy does not act on an unhealthy container, so a Triton that served once and
then fails as often as --end-after says is ended from here, and the policy starts it again.
Python's own library alone: the file runs in NVIDIA's image too.
"""

import argparse
import contextlib
import http.client
import json
import math
import os
import signal
import struct
import sys
from pathlib import Path
from typing import Any

STATE = Path("/tmp/triton-health")  # noqa: S108  (the container's own tmpfs)
TIMEOUT_S = 5.0
FAILURES = (OSError, http.client.HTTPException, ValueError, KeyError, LookupError, struct.error)


class HealthError(Exception):
    """Triton, or one of its models, does not answer as it should; the message says which."""


class SilentError(HealthError):
    """Triton takes connections, as it does once its models are loaded, and says nothing on them."""


def main() -> int:
    """Check once; the exit status."""
    parser = argparse.ArgumentParser(prog="health.py", description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="Triton's HTTP port on 127.0.0.1")
    parser.add_argument(
        "--end-after", type=int, default=0, help="end the container at so many failures in a row"
    )
    options = parser.parse_args()
    try:
        check(options.port)
    except HealthError as error:
        print(error, file=sys.stderr)
        started = isinstance(error, SilentError)
        if options.end_after and failed_again(started=started) >= options.end_after:
            end_container()
        return 1
    if options.end_after:
        STATE.write_text("0")
    return 0


def check(port: int) -> None:
    """Let every ready model answer; raises HealthError."""
    try:
        models = ask(port, "POST", "/v2/repository/index", b"{}")
    except TimeoutError as error:
        raise SilentError(f"Triton does not answer within {TIMEOUT_S:g} s") from error
    except FAILURES as error:
        raise HealthError(f"Triton does not answer: {error!r}") from error
    ready = sorted({model["name"] for model in models if model.get("state") == "READY"})
    if not ready:
        raise HealthError("Triton has loaded no model")
    for name in ready:
        before = executions(port, name)
        try:
            total = sum(infer(port, name))
        except TimeoutError as error:
            # It may only stand in the queue behind others that do get their answers.
            if executions(port, name) > before:
                continue
            raise HealthError(f"model {name} does not answer within {TIMEOUT_S:g} s") from error
        except FAILURES as error:
            raise HealthError(f"model {name} does not answer: {error!r}") from error
        if not math.isclose(total, 1.0, abs_tol=1e-2):  # so that NaN fails too
            raise HealthError(f"model {name} answers probabilities that sum to {total:g}")


def ask(port: int, method: str, path: str, body: bytes | None = None) -> Any:  # noqa: ANN401
    """JSON of a request that must succeed."""
    return json.loads(exchange(port, method, path, body, {})[1])


def exchange(
    port: int, method: str, path: str, body: bytes | None, headers: dict[str, str]
) -> tuple[http.client.HTTPMessage, bytes]:
    """Headers and body of an answer; raises one of FAILURES."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise ValueError(f"{response.status} {answer[:500].decode(errors='replace')}")
        return response.headers, answer


def executions(port: int, name: str) -> int:
    """How many batches the model has run; 0 where Triton does not say."""
    try:
        stats = ask(port, "GET", f"/v2/models/{name}/stats")["model_stats"]
        return sum(int(version["execution_count"]) for version in stats)
    except FAILURES:
        return 0


def infer(port: int, name: str) -> tuple[float, ...]:
    """The probabilities of one black image; the tensors travel as bytes, not as JSON."""
    (image,) = ask(port, "GET", f"/v2/models/{name}/config")["input"]
    shape = [1, *(int(size) for size in image["dims"])]
    header = json.dumps(
        {
            "inputs": [
                {
                    "name": image["name"],
                    "datatype": "UINT8",
                    "shape": shape,
                    "parameters": {"binary_data_size": math.prod(shape)},
                }
            ],
            "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}],
        }
    ).encode()
    length = "Inference-Header-Content-Length"
    headers, answer = exchange(
        port,
        "POST",
        f"/v2/models/{name}/infer",
        header + bytes(math.prod(shape)),
        {length: str(len(header)), "Content-Type": "application/octet-stream"},
    )
    raw = answer[int(headers[length]) :]
    return struct.unpack(f"<{len(raw) // 4}f", raw)


def failed_again(*, started: bool) -> int:
    """Count a failure; the failures in a row, 0 for a Triton that has not served yet.

    `started`: it must have served, even if no check has seen it.
    """
    try:
        count = int(STATE.read_text()) + 1
    except (OSError, ValueError):
        if not started:
            return 0  # it is still loading
        count = 1
    STATE.write_text(str(count))
    return count


def end_container() -> None:
    """Ask PID 1 to end, and kill all the rest, a supervisor that hangs included.

    Nothing is done where PID 1 is root's or another's: that is no container of ours, or no
    container at all.
    """
    if os.getuid() == 0 or Path("/proc/1").stat().st_uid != os.getuid():
        print("not in a container of a user of its own, so nothing is ended", file=sys.stderr)
        return
    print("ending the container, so that it is started again", file=sys.stderr, flush=True)
    STATE.unlink(missing_ok=True)
    os.kill(1, signal.SIGTERM)
    os.kill(-1, signal.SIGKILL)  # not PID 1, and not this process


if __name__ == "__main__":
    sys.exit(main())
