"""server/bodies.py: multipart forms, whole and malformed."""

import pytest

from server.bodies import MAX_PARTS, Upload, parse_form
from server.problems import NoImage

PART = b'--b\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n%s\r\n'
END = b"--b--\r\n"


def test_fields_come_in_their_order_with_their_bytes() -> None:
    body = (
        PART % (b"image", b"a.jpg", b"one\r\n--c\r\n") + PART % ("naïve".encode(), b"", b"") + END
    )
    assert parse_form(body, b"b") == [
        Upload("image", "a.jpg", b"one\r\n--c\r\n"),
        Upload("naïve", "", b""),
    ]
    assert (
        parse_form(PART % (b"image", "猫.jpg".encode(), b"x") + END, b"b")[0].filename == "猫.jpg"
    )


def test_a_field_without_a_filename() -> None:
    body = b'--b\r\ncontent-disposition: form-data; name="image"\r\n\r\nbytes\r\n' + END
    assert parse_form(body, b"b") == [Upload("image", None, b"bytes")]


@pytest.mark.parametrize(
    ("body", "boundary", "message"),
    [
        pytest.param(b"", b"b", "closing boundary --b-- is missing", id="empty"),
        pytest.param(b"garbage", b"b", "malformed", id="no boundary in the body"),
        pytest.param(PART % (b"image", b"a", b"x"), b"b", "closing boundary", id="cut off"),
        pytest.param(PART % (b"image", b"a", b"x") + END, b"", "malformed", id="no boundary named"),
        pytest.param(PART % (b"a", b"", b"") * (MAX_PARTS + 1) + END, b"b", "more than", id="many"),
    ],
)
def test_malformed_forms(body: bytes, boundary: bytes, message: str) -> None:
    with pytest.raises(NoImage, match=message):
        parse_form(body, boundary)
