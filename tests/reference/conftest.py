"""Fixtures of the tests of reference/."""

from pathlib import Path

import pytest

from tests.reference.runs import write_images


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small images of two classes, which no test changes."""
    return write_images(tmp_path_factory.mktemp("images"))
