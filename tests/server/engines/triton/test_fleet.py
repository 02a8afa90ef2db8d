"""One gateway before several Tritons: killed, frozen, restarted, joining, found by name."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from server.engines.model import Model
from server.engines.triton.balancer import Balancer
from server.local_triton import loopback, probe, restarts
from server.local_triton.loopback import Answer
from server.local_triton.supervisor import LocalTriton, free_port
from server.problems import TritonAway
from tests import stack, tiny_models
from tests.photos import photo
from tests.stack import NO_AUTHORITIES, Asker, Gateway, running_gateway, running_triton, status
from tests.waiting import frozen, wait_for

IMAGE = photo(0, 64, 48)
PATIENCE = 30.0  # 5 s are what is documented; a loaded machine may take its time
pytestmark = pytest.mark.timeout(300)


def classify(gateway: Gateway) -> int:
    return stack.classify(gateway, IMAGE).status_code


def metric(url: str, pattern: str) -> float:
    text = httpx.get(url, trust_env=False, verify=NO_AUTHORITIES).text
    return sum(float(number) for number in re.findall(rf"^{pattern} (\S+)$", text, re.MULTILINE))


class Fleet:
    """Tritons that can be stopped and started one by one, on ports that they keep."""

    def __init__(self, repository: Path, count: int) -> None:
        self._repository = repository
        self._ports = [free_port() for _ in range(count)]
        self._stacks: dict[int, contextlib.ExitStack] = {}
        self.running: dict[int, LocalTriton] = {}
        self.probes: Counter[int] = Counter()  # by the port of the HTTP that they went to
        self.url = ",".join(f"127.0.0.1:{port}" for port in self._ports)

    def start(self, number: int) -> None:
        stack = self._stacks[number] = contextlib.ExitStack()
        triton = running_triton(self._repository, grpc_port=self._ports[number])
        self.running[number] = stack.enter_context(triton)

    def stop(self, number: int) -> None:
        self._stacks.pop(number).close()
        del self.running[number]

    def close(self) -> None:
        for number in list(self._stacks):
            self.stop(number)

    def pid(self, number: int) -> int:
        pid = self.running[number].pid
        assert pid
        return pid

    async def exchange(self, port: int, method: str, path: str, *rest: Any) -> Answer:
        """What their supervisors ask them, for which this is put in."""
        answer = await loopback.exchange(port, method, path, *rest)
        self.probes[port] += path.endswith("/infer")
        return answer

    def calls(self) -> list[float]:
        """The requests that each has answered, but for the probes of its supervisor."""
        pattern = r'nv_inference_request_success\{model="linear",version="1"\}'
        return [
            metric(triton.metrics_url, pattern) - self.probes[triton.http_port]
            for _, triton in sorted(self.running.items())
        ]

    def settled_calls(self) -> list[float]:
        """`calls` once nothing is added any more: Triton counts a request after it has answered."""
        seen = self.calls()

        def is_settled() -> bool:
            nonlocal seen
            time.sleep(0.3)
            before, seen = seen, self.calls()
            return before == seen

        wait_for(is_settled, what="an end of the counting")
        return seen


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    tiny_models.publish(folder, "linear")
    return folder


@pytest.fixture(scope="module")
def fleet(repository: Path) -> Iterator[Fleet]:
    """Three places for a Triton, the first two taken."""
    fleet = Fleet(repository, 3)
    with contextlib.closing(fleet), pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "exchange", fleet.exchange)
        fleet.start(0)
        fleet.start(1)
        yield fleet


@pytest.fixture(scope="module")
def gateway(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    flags = ("--triton-url", fleet.url, "--default-model", "linear")
    with running_gateway(tmp_path_factory.mktemp("gateway") / "log", *flags) as running:
        yield running


def wait_for_replicas(gateway: Gateway, count: int) -> None:
    wait_for(
        lambda: metric(f"{gateway.url}/metrics", "mixer_triton_replicas") == count,
        PATIENCE,
        f"{count} Tritons that answer",
    )


@contextlib.contextmanager
def load(gateway: Gateway) -> Iterator[list[int]]:
    """Requests one after another from each of six clients; every one must be answered."""
    answers: list[int] = []
    enough = threading.Event()

    def told(response: httpx.Response, _seconds: float) -> None:
        answers.append(response.status_code)

    threads = [Asker(gateway, IMAGE, enough, told) for _ in range(6)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(answers) > 12, what="answers")
        yield answers
        seen = len(answers)
        wait_for(lambda: len(answers) > seen + 12, what="answers afterwards")
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    assert set(answers) == {200}


def test_one_that_joins_late_gets_its_share(fleet: Fleet, gateway: Gateway) -> None:
    wait_for_replicas(gateway, 2)
    with load(gateway):
        fleet.start(2)
        wait_for_replicas(gateway, 3)
    # The last calls of the load had up to six images each; who got fewer gets more now.
    for _ in range(3 * 6):
        assert classify(gateway) == 200
    before = fleet.settled_calls()
    for _ in range(30):
        assert classify(gateway) == 200
    assert [after - first for after, first in zip(fleet.settled_calls(), before, strict=True)] == [
        10
    ] * 3


def test_a_killed_one_costs_no_request(
    fleet: Fleet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So long that the metrics, which are made once a second, tell of it.
    monkeypatch.setattr(restarts, "DELAY_S", 3.0)
    wait_for_replicas(gateway, 3)
    with load(gateway):
        os.kill(fleet.pid(1), signal.SIGKILL)
        wait_for_replicas(gateway, 2)
        assert status(f"{gateway.url}/readyz") == 200
        # Its supervisor starts it again.
        wait_for_replicas(gateway, 3)


def test_a_frozen_one_costs_no_request(fleet: Fleet, gateway: Gateway) -> None:
    wait_for_replicas(gateway, 3)
    repeated = metric(f"{gateway.url}/metrics", "mixer_triton_calls_repeated_total")
    with load(gateway):
        with frozen(fleet.pid(2)):
            wait_for_replicas(gateway, 2)
            assert status(f"{gateway.url}/readyz") == 200
        wait_for_replicas(gateway, 3)
    assert metric(f"{gateway.url}/metrics", "mixer_triton_calls_repeated_total") > repeated


def test_a_rolling_restart_costs_no_request(fleet: Fleet, gateway: Gateway) -> None:
    wait_for_replicas(gateway, 3)
    with load(gateway):
        for number in range(3):
            fleet.stop(number)
            fleet.start(number)
            wait_for_replicas(gateway, 3)


def test_none_left_is_503(fleet: Fleet, gateway: Gateway) -> None:
    for number in range(3):
        fleet.stop(number)
    wait_for_replicas(gateway, 0)
    assert status(f"{gateway.url}/readyz") == 503
    assert classify(gateway) == 503
    fleet.start(1)
    wait_for(lambda: status(f"{gateway.url}/readyz") == 200, PATIENCE, "ready again")
    assert classify(gateway) == 200


class Names(asyncio.SelectorEventLoop):
    """An event loop with a name service of its own."""

    table: dict[str, list[str]]
    asked = 0

    async def getaddrinfo(  # type: ignore[override] # as much of it as is used
        self, host: str, port: int, **_options: object
    ) -> list[tuple[object, ...]]:
        self.asked += 1
        if host not in self.table:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (ip, port, 0, 0))
            if ":" in ip
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port))
            for ip in self.table[host]
        ]


@contextlib.asynccontextmanager
async def relay(ip: str, port: int, target: LocalTriton) -> AsyncIterator[None]:
    """Another address of a Triton."""
    ends: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target.grpc_port)
        ends.extend((writer, far_writer))
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    async with await asyncio.start_server(connect, ip, port):
        yield
    for end in ends:
        end.close()
        with contextlib.suppress(OSError):
            await end.wait_closed()


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_for, condition, PATIENCE)


def test_a_name_with_several_addresses(repository: Path, tmp_path: Path) -> None:
    """127.0.0.2 leads to a second Triton, 127.0.0.3 to one whose model wants other images."""
    tiny_models.publish(tmp_path, "linear", parameters={"resize": "shortest"})
    names = Names()
    names.table = {}
    image = np.zeros((tiny_models.SIZE, tiny_models.SIZE, 3), np.uint8)

    async def run(one: LocalTriton) -> None:
        balancer = Balancer(f"tritons:{one.grpc_port}", "linear", 30.0)
        watch = asyncio.create_task(balancer.watch())

        def serving() -> list[str]:
            return [each.url.rpartition(":")[0] for each in balancer.serving("linear")]

        async def infer() -> Model:
            model = balancer.get("linear")
            answers, _ = await balancer.infer(model, [image], 30.0)
            assert answers.shape == (1, tiny_models.CLASSES)
            return model

        try:
            with pytest.raises(TritonAway, match=r"has not answered|cannot be resolved"):
                balancer.get("linear")
            names.table["tritons"] = ["::1", "127.0.0.1"]
            await until(lambda: serving() == ["127.0.0.1"])
            model = await infer()
            # The first one that came, of as many for the one contract as for the other.
            names.table["tritons"] = ["127.0.0.3", "127.0.0.1"]
            await until(lambda: len(serving()) == 2)
            assert await infer() is model
            names.table["tritons"] = ["127.0.0.2", "127.0.0.3", "127.0.0.1"]
            await until(lambda: len(serving()) == 3)
            assert [await infer() for _ in range(4)] == [model] * 4
            assert balancer.slots(model) == 4
            names.table["tritons"] = ["127.0.0.2", "127.0.0.3"]
            await until(lambda: "127.0.0.1" not in serving())
            # A resolver that fails takes nothing away.
            del names.table["tritons"]
            asked = names.asked
            await until(lambda: names.asked > asked + 1)
            assert len(serving()) == 2
            assert (await infer()).interchangeable(model)
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            await balancer.close(5.0)

    async def with_relays(one: LocalTriton, two: LocalTriton, other: LocalTriton) -> None:
        async with (
            relay("127.0.0.2", one.grpc_port, two),
            relay("127.0.0.3", one.grpc_port, other),
        ):
            await run(one)

    with (
        running_triton(repository) as one,
        running_triton(repository) as two,
        running_triton(tmp_path) as other,
        asyncio.Runner(loop_factory=lambda: names) as runner,
    ):
        runner.run(with_relays(one, two, other))
