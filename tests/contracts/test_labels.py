"""Labels: every language passes, what an editor adds is stripped, what is no line is refused."""

import unicodedata
from pathlib import Path

import pytest

from contracts.labels import (
    LabelsError,
    clean_served,
    labels_text,
    numbered_labels,
    read_labels,
    repeated_labels,
)

# Each with what makes it hard.
LABELS = {
    "plain": "cat",
    "spaces": "Labrador retriever",
    "accents": "écureuil",
    "comma": "tench, Tinca tinca",
    "colon": "shop: bakery",
    "quotes": "\"a\" 'b' \\ {c} #d",
    "markup": "<b>&amp;</b>",
    "no-break space": "ice\u00a0cream",
    "narrow no-break space": "5\u202fkg",
    "ideographic space": "日本\u3000猫",
    "zero-width non-joiner": "می\u200cخواهم",
    "zero-width joiner": "क्\u200dष",
    "family": "👨\u200d👩\u200d👧",
    "flag and skin": "🇫🇷 👍🏽",
    "variation selector": "❤\ufe0f",
    "marks of direction": "\u200fשלום\u200e (dog)",
    "isolates": "\u2068حصان\u2069",
    "soft hyphen": "Donau\u00addampf",
    "word joiner": "a\u2060b",
    "zero-width space": "ก\u200bข",
    "combining": "e\u0301",
    "private use": "\ue000",
    "astral": "𝒳",
    "a sign of tomorrow": "\U0001fadf",
    "an ending in a no-break space": "cat\u00a0",
}


@pytest.mark.parametrize("case", LABELS)
def test_a_label_of_any_language_comes_back_as_it_was(tmp_path: Path, case: str) -> None:
    labels = [LABELS[case], "dog"]
    path = tmp_path / "labels.txt"
    path.write_text(labels_text(labels), encoding="utf-8")
    assert read_labels(path) == read_labels(path, 2) == labels
    # Triton hands each line on as it is; an editor may have put its marks around them.
    assert clean_served(labels) == labels
    assert clean_served([f"\ufeff{labels[0]}\r", "dog\r"]) == labels
    path.write_text("\ufeff" + labels_text(labels).replace("\n", "\r\n"), encoding="utf-8")
    assert read_labels(path, 2) == labels


@pytest.mark.parametrize(
    "content",
    [
        b"cat\ndog\n",
        b"cat\ndog",
        b"\xef\xbb\xbfcat\ndog\n",
        b"cat\r\ndog\r\n",
        b"\xef\xbb\xbfcat\r\ndog",
        b"cat \n\tdog\t\n",
        b"cat\ndog\n\n \r\n\t\n",
    ],
)
def test_what_editors_add_is_no_part_of_a_label(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    assert read_labels(path, 2) == ["cat", "dog"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\nb\n", "expected 3 lines, one per class, found 2"),
        (b"a\nb\nc\nd\n", "found 4"),
        (b"a\n\nc\n", "line 2 is empty"),
        (b"a\n \t\nc\n", "line 2 is empty"),
        (b"a\nb\x00\nc\n", r"line 2 has control characters \(U\+0000\)"),
        (b"a\nb\x1b[31m\nc\n", r"line 2 has control characters \(U\+001B\)"),
        (b"a\nb\tb\nc\n", r"line 2 has control characters \(U\+0009\)"),
        (b"a\rb\rc\r", r"line 1 has control characters \(U\+000D\)"),
        ("a\nb\u0085\nc\n".encode(), r"line 2 has control characters \(U\+0085\)"),
        ("a\nb\u2028b\nc\n".encode(), r"line 2 has control characters \(U\+2028\)"),
        (b"a\n\xff\xfe\nc\n", "expected text in UTF-8, found byte 0xff at 2; save the file"),
        ("Käfer\nb\nc\n".encode("latin-1"), "expected text in UTF-8, found byte 0xe4 at 1"),
        ("a\nb\nc\n".encode("utf-16"), "expected text in UTF-8"),
        (b"", "line 1 is empty"),
        (b"\xef\xbb\xbf\r\n", "line 1 is empty"),
    ],
)
def test_what_is_refused_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(LabelsError, match=message) as error:
        read_labels(path, 3)
    assert str(error.value).startswith(f"{path}: ")
    assert str(error.value).isprintable()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match=r"none\.txt: No such file"):
        read_labels(tmp_path / "none.txt", 3)
    with pytest.raises(LabelsError, match="Is a directory"):
        read_labels(tmp_path, 3)


@pytest.mark.parametrize("label", ["", "  ", "a\nb", "a\0", "a\u2029b", "\udcff"])
def test_names_of_folders_that_no_line_can_hold(label: str) -> None:
    with pytest.raises(LabelsError, match="label 1, "):
        labels_text(["cat", label])


def test_nothing_but_control_characters_and_ends_of_lines_is_refused() -> None:
    refused = []
    for code in (*range(0xD800), *range(0xE000, 0x11000)):
        try:
            labels_text(["a", f"a{chr(code)}a"])
        except LabelsError:
            refused.append(chr(code))
    assert {unicodedata.category(character) for character in refused} == {"Cc", "Zl", "Zp"}
    assert len(refused) == 65 + 2


def test_stand_ins_and_repeated_names() -> None:
    assert numbered_labels(1000)[7] == "class_007"
    assert numbered_labels(1) == ["class_0"]
    assert repeated_labels(["crane", "cat", "crane"]) == ["crane"]
