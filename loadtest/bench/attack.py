"""Whether one client can keep another from being served.

In: a photograph, and a folder of files that are expensive to decode. Out: how many photographs of a
user were answered in time beside an attacker that sends those files, each in turn, and hangs up
early at every third; what the attacker got; the highest memory of the gateway. It starts a gateway
with a Triton, once without API keys, where the user has another address than the attacker, and once
with, where both have the same address and keys of their own, and half of the attacker's requests
have none. Exits with 1 if fewer than 95 % of the photographs were answered in time, or the gateway
took more memory than it may.

    python -m tests.server.serving.images.bombs bombs
    python -m loadtest bench attack cat.jpg bombs --seconds 60
"""

import asyncio
import contextlib
import hashlib
import itertools
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psutil
from tyro.conf import Positional

from loadtest.bench.programs import run
from loadtest.load import loop
from loadtest.load.arrivals import even
from loadtest.load.engine import Sample, at_rate
from loadtest.load.http import FAILURES, Http
from loadtest.load.http_target import StatusTarget
from loadtest.servers.launch import Server, gateway
from loadtest.servers.processes import ROLES, program, tree
from loadtest.stats.samples import good, latencies
from loadtest.usage import UsageError

IN_TIME = 0.95
ATTACKER, USER = "127.0.0.1", "127.0.0.2"
HANG_UP_SECONDS = 0.1
# The share of the decoding budget that the gateway may take beyond the sum of its parts.
MEMORY_SLACK = 0.1
BASE_BYTES = 400 * 2**20  # the interpreter, gRPC, a process for large images for each core
LOOK_SECONDS = 0.05


def main(
    photo: Positional[Path],
    bombs: Positional[Path],
    *,
    seconds: float = 60.0,
    rate: float = 10.0,
    pause: float = 0.2,
    deadline: float = 2.0,
    decode_bytes: int = 2**30,
    buffered_bytes: int = 2**29,
) -> int:
    """Measure and print; 1 if the attacker took too much.

    Args:
        photo: What the user sends.
        bombs: A folder of files that are expensive to decode.
        seconds: How long the attack lasts.
        rate: Files of the attacker per second.
        pause: Seconds between the user's photographs.
        deadline: X-Request-Timeout of the user's, in seconds.
        decode_bytes: --max-decode-bytes of the gateway.
        buffered_bytes: --max-buffered-bytes of the gateway.
    """
    files = [path.read_bytes() for path in sorted(bombs.iterdir()) if path.is_file()]
    if not files:
        raise UsageError(
            f"{bombs} has no files; python -m tests.server.serving.images.bombs writes some"
        )
    limits = ("--max-decode-bytes", str(decode_bytes), "--max-buffered-bytes", str(buffered_bytes))
    budget = decode_bytes + buffered_bytes + BASE_BYTES
    kept = True
    for with_keys in (False, True):
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            keys = {name: secrets.token_urlsafe(32) for name in ("attacker", "user")}
            flags = ["--with-triton", *limits]
            if with_keys:
                lines = (f"{name} {hashlib.sha256(key.encode()).hexdigest()}\n"
                         for name, key in keys.items())  # fmt: skip
                Path(folder, "keys").write_text("".join(lines))
                flags += ["--keys-file", str(Path(folder, "keys"))]
            server = stack.enter_context(gateway(*flags))
            print(f"{'with' if with_keys else 'without'} API keys:")
            attack = Attack(
                server,
                [header(keys["attacker"]), ""] if with_keys else [""],
                header(keys["user"]) if with_keys else "",
                ATTACKER if with_keys else USER,
            )
            found = loop.run(
                attack.measure(
                    photo.read_bytes(),
                    files,
                    seconds=seconds,
                    rate=rate,
                    pause=pause,
                    deadline=deadline,
                )
            )
            kept &= verdict(found, attack, deadline, budget)
    return 0 if kept else 1


def header(key: str) -> str:
    """The line that carries an API key."""
    return f"X-API-Key: {key}\r\n"


class Attack:
    """The clients of one gateway, and the answers and the memory that they have seen."""

    def __init__(
        self, server: Server, headers: Sequence[str], user_header: str, user_address: str
    ) -> None:
        self._server = server
        self._headers = headers
        self._user = Http(server.url, user_address)
        self._user_header = user_header
        self.statuses: Counter[str] = Counter()
        self.peak = 0
        self._underway: set[asyncio.Task[None]] = set()

    async def measure(
        self,
        photo: bytes,
        files: Sequence[bytes],
        *,
        seconds: float,
        rate: float,
        pause: float,
        deadline: float,
    ) -> list[Sample]:
        """The user's samples."""
        lines = f"X-Request-Timeout: {deadline}\r\n{self._user_header}"
        request = self._user.request("/classify", photo, "image/jpeg", lines)
        # A task that fails ends the program: without an attacker every promise would be kept.
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._watch_memory())
            attacking = group.create_task(self._attack(files, rate, group))
            samples = await at_rate(StatusTarget(self._user, [request]), even(1 / pause), seconds)
            for task in (watching, attacking, *self._underway):
                task.cancel()
        self._user.close()
        return samples

    async def _attack(self, files: Sequence[bytes], rate: float, group: asyncio.TaskGroup) -> None:
        began = time.monotonic()
        each = zip(itertools.cycle(files), itertools.cycle(self._headers), strict=False)
        for number, (file, line) in enumerate(each):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            task = group.create_task(self._send(file, line, hang_up=number % 3 == 2))
            self._underway.add(task)
            task.add_done_callback(self._underway.discard)

    async def _send(self, file: bytes, line: str, *, hang_up: bool) -> None:
        http = Http(self._server.url, ATTACKER)
        try:
            request = http.request("/classify", file, "application/octet-stream", line)
            async with asyncio.timeout(HANG_UP_SECONDS if hang_up else None):
                status = str((await http.exchange(request)).status)
        except TimeoutError:
            status = "hung up" if hang_up else "no answer"
        except FAILURES as error:
            status = type(error).__name__
        self.statuses[status] += 1
        http.close()

    async def _watch_memory(self) -> None:
        """Record the peak of the gateway's memory: private pages and the share of common ones."""
        while True:
            held = 0
            for process in tree(self._server.pid):
                with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                    if program(process) not in ROLES:
                        held += process.memory_full_info().pss
            self.peak = max(self.peak, held)
            await asyncio.sleep(LOOK_SECONDS)


def verdict(samples: Sequence[Sample], attack: Attack, deadline: float, budget: int) -> bool:
    """Print the findings; returns whether the promises were kept."""
    answered = [sample for sample in good(samples) if sample.seconds <= deadline]
    share = len(answered) / len(samples)
    statuses = dict(Counter(sample.answered.status for sample in samples))
    print(f"  user: {statuses}, {share:.1%} in time, {latencies(answered)}")
    print(f"  attacker: {dict(attack.statuses)}")
    limit = (1 + MEMORY_SLACK) * budget
    print(f"  memory: {attack.peak / 2**20:.0f} MiB at most, {limit / 2**20:.0f} are allowed")
    kept = {
        f"{IN_TIME:.0%} of the photographs in time": share >= IN_TIME,
        "memory within the budget and a tenth": attack.peak <= limit,
    }
    for promise, is_kept in kept.items():
        print(f"  {'kept' if is_kept else 'BROKEN'}: {promise}")
    return all(kept.values())


if __name__ == "__main__":
    sys.exit(run(main))
