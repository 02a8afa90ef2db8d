"""contracts/images: every odd file has its right pixels, or is refused with its reason."""

import re

import numpy as np
import pytest

from contracts.images.decoding import decode, open_header
from contracts.images.errors import ImageError, UnsupportedTypeError
from contracts.images.formats import HEIC_IS_READ
from tests.contracts.images.corpus import Case, depths, metadata, strangers, transparency

GROUPS = (transparency, depths, metadata, strangers)
CASES = {case.name: case for group in GROUPS for case in group.cases()}
LIMIT = 10**8
# Neither bytes nor Python's objects are anything for people.
UNSPEAKABLE = re.compile(r"0x[0-9a-f]+|\\x|([0-9a-f]{2} ){3}|<.* object")


def is_read(case: Case) -> bool:
    """Whether what the case wants refused is read here, by the extra pillow-heif."""
    return HEIC_IS_READ and case.says.startswith("HEIC")


def test_names_are_unique_and_many() -> None:
    assert len(CASES) == sum(1 for group in GROUPS for _ in group.cases())
    assert len(CASES) >= 400


@pytest.mark.parametrize(
    "case", [case for case in CASES.values() if case.right is not None], ids=lambda case: case.name
)
def test_the_pixels_are_right(case: Case) -> None:
    found = np.asarray(decode(open_header(case.data, LIMIT)).image)
    assert case.right is not None
    assert found.shape == case.right.shape
    assert np.abs(found.astype(int) - case.right).max() <= case.tolerance


@pytest.mark.parametrize(
    "case",
    [case for case in CASES.values() if case.right is None and not is_read(case)],
    ids=lambda case: case.name,
)
def test_the_refusal_says_what_it_is(case: Case) -> None:
    with pytest.raises(ImageError, match=case.says) as caught:
        decode(open_header(case.data, LIMIT))
    assert not UNSPEAKABLE.search(str(caught.value))


def test_what_is_no_image_is_named_by_its_type() -> None:
    for case in strangers.named():
        if not is_read(case):
            with pytest.raises(UnsupportedTypeError):
                open_header(case.data, LIMIT)
