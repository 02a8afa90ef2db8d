"""web/bodies.py: multipart forms, whole and malformed, and what given up requests hold."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from server.problems import NoImage
from server.web.bodies import (
    MAX_BOUNDARY,
    MAX_PADDING,
    MAX_PARTS,
    MAX_SEMICOLONS,
    Upload,
    parse_form,
)

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
        pytest.param(b"--b\r\n\r\n\r\n--bc\r\n" + END, b"b", "not followed by", id="a prefix"),
        pytest.param(b"--b\r\nhead\r\n\r\n\r\n" + END, b"b", "b'head' where NAME", id="no colon"),
        pytest.param(b"--b\r\nhead: x\r\n" + END, b"b", "empty line", id="headers without end"),
        pytest.param(
            b"--b\r\nContent-Disposition: f" + b";" * (MAX_SEMICOLONS + 1) + b"\r\n\r\n\r\n" + END,
            b"b",
            f"or {MAX_SEMICOLONS} semicolons",
            id="semicolons",
        ),
        pytest.param(END, b"b" * (MAX_BOUNDARY + 1), "1 to 256 are expected", id="long boundary"),
    ],
)
def test_malformed_forms(body: bytes, boundary: bytes, message: str) -> None:
    with pytest.raises(NoImage, match=message):
        parse_form(body, boundary)


def test_blanks_after_a_boundary_and_a_preamble_are_no_part_of_it() -> None:
    padded = (PART % (b"image", b"a", b"x")).replace(b"--b\r", b"--b" + b" " * MAX_PADDING + b"\r")
    assert parse_form(b"A form:\r\n" + padded + END + b"the end", b"b") == [
        Upload("image", "a", b"x")
    ]


@pytest.mark.parametrize("before", [b"", b"\n", b"\r", b"\r\n", b"\r\n\r\n\n"])
def test_the_first_field_is_not_lost_after_an_empty_line(before: bytes) -> None:
    names = [b"1.jpg", b"2.jpg", b"3.jpg"]
    body = before + b"".join(PART % (b"image", name, b"x") for name in names) + END
    assert [upload.filename for upload in parse_form(body, b"b")] == [n.decode() for n in names]


def test_a_file_name_outside_the_charset_of_its_page() -> None:
    name = "".join(f"&#{0x65E5 + i};" for i in range(200)) + ".jpg"  # as browsers write it
    (upload,) = parse_form(PART % (b"image", name.encode(), b"x") + END, b"b")
    assert upload.filename == name


HEAD = b"--b\r\nContent-Disposition: form-data; name=image\r\n\r\n"


@pytest.mark.parametrize(
    ("begin", "repeated", "end", "message"),
    [
        pytest.param(HEAD + b"\r\n--b", b" ", b"\r\n" + END, "not followed by", id="padding"),
        pytest.param(HEAD, b"\r\n--bX", b"\r\n" + END, "not followed by", id="boundaries"),
        pytest.param(HEAD, b"\r\n--b", b"\r\n" + END, "more than", id="boundaries alone"),
        pytest.param(b"--b\r\nx:", b" ", b"\r\n\r\n\r\n" + END, "more than", id="header"),
        pytest.param(
            b"", b"--b\r\nx:" + b" " * 4000 + b"\r\n\r\n\r\n", END, "more than", id="headers"
        ),
        pytest.param(
            b"--b\r\nContent-Disposition: form-data",
            b";",
            b"\r\n\r\n\r\n" + END,
            "of all parts have more than",
            id="semicolons",
        ),
        pytest.param(
            b"--b\r\nContent-Disposition: form-data" + b";" * (MAX_SEMICOLONS + 1),
            b"x",
            b"\r\n\r\n\r\n" + END,
            "empty line",
            id="semicolons and a long value",
        ),
        pytest.param(
            b"",
            b"--b\r\nContent-Disposition: form-data" + b";" * 290 + b"\r\n\r\n\r\n",
            END,
            "of all parts have more than",
            id="semicolons of many",
        ),
        *(
            pytest.param(HEAD, text, b"\r\n" + END, None, id=repr(text))
            for text in (b"\r", b"\n", b"\r\n", b"\r\n-", b"\r\n--", b"-", b"--b")
        ),
    ],
)
def test_what_a_form_takes_does_not_grow_with_hostile_bytes(
    begin: bytes, repeated: bytes, end: bytes, message: str | None
) -> None:
    size = 200_000 if repeated == b";" else 500_000  # semicolons: within the limit for headers
    body = begin + repeated * (size // len(repeated)) + end

    def parse() -> None:
        if message is None:
            assert len(parse_form(body, b"b")) == 1
            return
        with pytest.raises(NoImage, match=message):
            parse_form(body, b"b")

    # Seconds would depend on the machine. It is lines of Python that made 32 MiB take many.
    assert lines_run(parse) < 1_000_000


def lines_run(call: Callable[[], None]) -> int:
    """How many lines of Python `call` runs."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count
