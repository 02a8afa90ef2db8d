"""Of several workers each is ready for itself, and says so on the connections that it has."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from server.local_triton.supervisor import LocalTriton
from tests.photos import photo
from tests.relay import Relay
from tests.stack import Gateway, client_of, running_gateway, status
from tests.waiting import wait_for


@contextlib.contextmanager
def narrow(target: str) -> Iterator[Relay]:
    way = Relay(target, narrow=True)
    try:
        yield way
    finally:
        way.close()


def answers(gateway: Gateway) -> tuple[int, int]:
    """The statuses of /readyz and of an image, on one connection and so of one worker."""
    with client_of(gateway, 60.0) as client:
        ready = client.get("/readyz")
        image = client.post(
            "/classify", content=photo(0, 60, 60), headers={"Content-Type": "image/jpeg"}
        )
        for each in (ready, image):
            assert each.status_code == 200 or each.headers["retry-after"] == "1"
        return ready.status_code, image.status_code


def test_a_worker_that_is_not_ready_says_so_and_answers_503(
    triton: LocalTriton, tmp_path: Path
) -> None:
    with (
        narrow(triton.grpc_url) as way,
        running_gateway(
            tmp_path / "log", "--triton-url", way.url, "--workers", "2", ready=False
        ) as gateway,
    ):
        wait_for(lambda: status(f"{gateway.url}/readyz") == 200, what="one ready worker")
        seen: set[tuple[int, int]] = set()

        def both_seen() -> bool:
            seen.add(answers(gateway))
            return seen >= {(200, 200), (503, 503)}

        wait_for(both_seen, what="answers of both workers")
        way.narrow = False
        wait_for(
            lambda: {answers(gateway) for _ in range(8)} == {(200, 200)}, what="two ready workers"
        )
