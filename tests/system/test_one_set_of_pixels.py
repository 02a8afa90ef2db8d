"""One file, one set of pixels: training, calibration, load tests and HTTP give the same."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from contracts.images.decoding import read
from contracts.images.errors import ImageError
from contracts.images.formats import HEIC_IS_READ
from contracts.resizing import ResizeRule
from export.image_files import read_image
from export.preprocessing import Preprocessing
from loadtest.load.sample_images import SampleImage
from reference import data
from tests import identity_model
from tests.contracts.images.corpus import depths, metadata, strangers, transparency
from tests.server.web.hostile_images import odd
from tests.stack import Gateway, running_gateway, running_triton

SIDE = 24
GROUPS = (transparency, depths, metadata)
CASES = [case for group in GROUPS for case in group.cases()]
CORPUS = {
    **{case.name: case.data for case in CASES if case.right is not None},
    **{case.name: case.body for case in odd() if not case.content_type.startswith("multipart")},
}
# The bytes are no format that is read (415), or an image that is refused (422).
REFUSED = [
    *((case, 415) for case in strangers.named()),
    *((case, 422) for case in (*strangers.kin(), *CASES) if case.right is None),
]
# What a published model of each kind states.
RULES = {
    "default": ResizeRule(SIDE, SIDE),
    "timm": ResizeRule(SIDE, SIDE, "shortest", "bicubic", True, 24 / 26, "torchvision"),
    "official": ResizeRule(SIDE, SIDE, antialias=False),
}


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose models answer with the pixels that they are given."""
    repository = tmp_path_factory.mktemp("identity")
    for name, rule in RULES.items():
        identity_model.publish(repository, name, rule)
    log = tmp_path_factory.mktemp("log") / "gateway.log"
    with running_triton(repository) as triton:
        flags = ("--triton-url", triton.grpc_url, "--default-model", "default")
        with running_gateway(log, *flags) as gateway:
            yield gateway


def test_the_corpus_is_large_enough() -> None:
    assert len(CORPUS) >= 400
    assert len(REFUSED) >= 80


@pytest.mark.parametrize("name", CORPUS)
def test_every_reader_gives_the_same_pixels(name: str, tmp_path: Path) -> None:
    body = CORPUS[name]
    right = read(body, RULES["default"])
    file = tmp_path / "train" / "class" / "file.jpg"  # the bytes decide, not the suffix
    file.parent.mkdir(parents=True)
    file.write_bytes(body)
    in_memory = data.load(tmp_path, "train", SIDE)
    assert isinstance(in_memory, data.Memory)
    np.testing.assert_array_equal(in_memory.images[0], right)
    from_file = data.load(tmp_path, "train", SIDE, as_files=True).square(0)
    np.testing.assert_array_equal(from_file, right)
    calibration = read_image(file, Preprocessing(), SIDE)
    assert calibration is not None
    np.testing.assert_array_equal(calibration, right)
    np.testing.assert_array_equal(SampleImage(name, body).pixels(SIDE, SIDE), right)


@pytest.mark.parametrize("model", RULES)
def test_over_http_the_model_gets_the_same_pixels(identity: Gateway, model: str) -> None:
    rule = RULES[model]
    every = str(SIDE * SIDE * 3 + 1)
    raw = {"Content-Type": "application/octet-stream"}
    with httpx.Client(base_url=identity.url, trust_env=False, timeout=60) as client:
        for name, body in CORPUS.items():
            query = {"model": model, "top_k": every}
            response = client.post("/classify", params=query, content=body, headers=raw)
            assert response.status_code == 200, (name, response.text)
            found = identity_model.pixels(response.json(), rule)
            np.testing.assert_array_equal(found, read(body, rule), err_msg=name)


def test_what_no_reader_reads_http_refuses_with_the_same_reason(identity: Gateway) -> None:
    raw = {"Content-Type": "application/octet-stream"}
    with httpx.Client(base_url=identity.url, trust_env=False, timeout=60) as client:
        for case, status in REFUSED:
            if not case.data or (HEIC_IS_READ and case.says.startswith("HEIC")):
                continue
            with pytest.raises(ImageError) as caught:
                read(case.data, RULES["default"])
            response = client.post("/classify", content=case.data, headers=raw)
            assert response.status_code == status, (case.name, response.text)
            assert re.search(case.says, response.json()["detail"])
            assert response.json()["detail"] == str(caught.value)
