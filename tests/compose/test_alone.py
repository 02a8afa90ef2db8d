"""The smallest image: the gateway with ONNX Runtime in its own process, and the shipped models."""

import os
from collections.abc import Iterator

import httpx
import pytest

from server.local_triton.supervisor import free_port
from tests.compose.stack import BASE_IMAGE, check_right, missing, run
from tests.photos import photo
from tests.stack import status
from tests.waiting import wait_for

pytestmark = [pytest.mark.skipif(bool(missing()), reason=missing()), pytest.mark.timeout(600)]
NAME = f"mixer-serving-test-alone-{os.getpid()}"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of a closed container of it."""
    base, port = f"PYTHON_IMAGE={BASE_IMAGE}", free_port()
    run("docker", "build", "--quiet", "--build-arg", base, "--target", "alone", "--tag", NAME, ".")
    try:
        run(
            *("docker", "run", "--detach", "--name", NAME, "--read-only", "--tmpfs", "/tmp"),  # noqa: S108
            *("--cap-drop", "ALL", "--publish", f"127.0.0.1:{port}:8000", NAME),
        )
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: status(f"{url}/readyz") == 200, 120, "a ready container")
        yield url
    finally:
        run("docker", "rm", "--force", NAME, check=False)
        run("docker", "image", "rm", "--force", NAME, check=False)


def test_it_answers_as_the_model_itself_does(url: str) -> None:
    answer = httpx.post(
        f"{url}/classify", params={"top_k": 10}, content=photo(2), trust_env=False, timeout=30
    )
    assert answer.status_code == 200, answer.text
    check_right(answer.json()["predictions"], photo(2))


def test_it_is_smaller_than_the_gateway_and_triton(url: str) -> None:
    assert url
    size = int(run("docker", "image", "inspect", "--format", "{{.Size}}", NAME).stdout)
    assert size < 450e6  # 374 MB when it was measured; the two of docker-compose.yml are 709 MB
