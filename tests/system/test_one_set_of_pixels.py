"""One file, one set of pixels: training, calibration, load tests and the gateway read alike."""

from pathlib import Path

import numpy as np
import pytest

from contracts.resizing import Pixels, ResizeRule
from export.image_files import read_image
from export.preprocessing import Preprocessing
from loadtest.load.sample_images import SampleImage
from reference import data
from server.images.decoding import decode, open_header
from tests.server.web.hostile_images import odd

SIDE = 32
CORPUS = {case.name: case.body for case in odd() if not case.content_type.startswith("multipart")}


def served(body: bytes) -> Pixels:
    return decode(open_header(body, 10**8), ResizeRule(SIDE, SIDE))


def test_the_corpus_is_large_enough() -> None:
    assert len(CORPUS) >= 60


@pytest.mark.parametrize("name", CORPUS)
def test_every_reader_gives_the_same_pixels(name: str, tmp_path: Path) -> None:
    body = CORPUS[name]
    file = tmp_path / "train" / "class" / "file.jpg"  # the bytes decide, not the suffix
    file.parent.mkdir(parents=True)
    file.write_bytes(body)
    right = served(body)
    in_memory = data.load(tmp_path, "train", SIDE)
    assert isinstance(in_memory, data.Memory)
    np.testing.assert_array_equal(in_memory.images[0], right)
    np.testing.assert_array_equal(
        data.load(tmp_path, "train", SIDE, as_files=True).square(0), right
    )
    calibration = read_image(file, Preprocessing(), SIDE)
    assert calibration is not None
    np.testing.assert_array_equal(calibration, right)
    np.testing.assert_array_equal(SampleImage(name, body).pixels(SIDE, SIDE), right)
