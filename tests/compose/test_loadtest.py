"""The profile `loadtest`: locust in a container asks the gateway in another one."""

from collections.abc import Iterator

import pytest

from server.local_triton.supervisor import free_port
from tests.compose.stack import Stack, missing, running_stack
from tests.stack import status
from tests.waiting import wait_for

LACKING = missing()
pytestmark = [pytest.mark.skipif(bool(LACKING), reason=LACKING), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running stack with locust's image built."""
    folder = tmp_path_factory.mktemp("loadtest")
    with running_stack(folder, LOADTEST_PORT=str(free_port())) as running:
        running.compose("build", "loadtest")
        yield running


def test_a_run_without_the_page_ends_with_status_0(stack: Stack) -> None:
    flags = ("--headless", "--users", "2", "--spawn-rate", "2", "--run-time", "3s")
    command = ("run", "--rm", "--no-TTY", "loadtest", "--host", "http://gateway:8000")
    done = stack.compose(*command, *flags)
    assert "POST" in done.stdout + done.stderr


def test_the_page_is_there(stack: Stack) -> None:
    stack.compose("up", "--detach", "--no-deps", "loadtest")
    url = f"http://127.0.0.1:{stack.variables['LOADTEST_PORT']}/"
    wait_for(lambda: status(url) == 200, what="locust's page")
