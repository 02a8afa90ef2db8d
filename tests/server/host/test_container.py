"""server/host/container.py: the memory that the process may take."""

from pathlib import Path

import psutil
import pytest

from server.host.container import memory_limit

MACHINE = psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("membership", "files", "limit"),
    [
        # Version 2: the lowest of the group and of all that it lies in.
        ("0::/a/b\n", {"a/b/memory.max": "300000000", "a/memory.max": "200000000"}, 200_000_000),
        ("0::/a/b\n", {"a/b/memory.max": "100000000", "a/memory.max": "max"}, 100_000_000),
        ("0::/\n", {"memory.max": "100000000"}, 100_000_000),  # as within a container
        ("0::/a\n", {"a/memory.max": "max"}, MACHINE),
        ("0::/a\n", {"a/memory.max": "nonsense"}, MACHINE),
        ("0::/gone\n", {}, MACHINE),
        ("0::/a\n", {"a/memory.max": str(100 * MACHINE)}, MACHINE),
        # Version 1, where memory has a tree of its own; without a limit it is nearly 2^63.
        (
            "5:cpu,memory:/d\n4:pids:/d\n",
            {"memory/d/memory.limit_in_bytes": "150000000"},
            150_000_000,
        ),
        ("5:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, MACHINE),
        ("", {}, MACHINE),
    ],
)
def test_the_lowest_limit_counts(
    tmp_path: Path, membership: str, files: dict[str, str], limit: int
) -> None:
    groups, own = tmp_path / "groups", tmp_path / "cgroup"
    own.write_text(membership)
    for name, text in files.items():
        path = groups / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert memory_limit(groups, own) == limit


def test_a_system_without_groups_has_the_machines_memory(tmp_path: Path) -> None:
    assert memory_limit(tmp_path, tmp_path / "none") == MACHINE
    assert 2**26 < memory_limit() <= MACHINE
