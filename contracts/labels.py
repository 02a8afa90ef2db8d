"""Labels: the names of a model's classes, one per line, in the order of the logits.

In: a text file, or names of folders. Out: the same labels, in any language, everywhere: from a
folder's name to `labels.txt`, through Triton, to the JSON of an answer. Only a label that no line
of text can hold is refused. No-break spaces, zero-width joiners and marks of direction belong to a
label.
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

# Editors on Windows begin a file with this mark, and end each line with a carriage return.
BYTE_ORDER_MARK = "\ufeff"
# Around a label these blanks are typing errors; other spaces may be intended.
_BLANKS = " \t\r"
# Control characters, and the two that end a line or a paragraph.
_REFUSED = {"Cc", "Zl", "Zp"}


class LabelsError(ValueError):
    """The labels cannot be used; the message is one sentence for the user."""


def read_labels(path: Path, num_classes: int | None = None) -> list[str]:
    """The labels of a file in UTF-8; with `num_classes`, exactly that many labels.

    Blank lines at the end are ignored, one in the middle is an error. Raises LabelsError, which
    names the file, the line and what is wrong with it.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise LabelsError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise LabelsError(
            f"{path}: expected text in UTF-8, found byte {error.object[error.start]:#04x} "
            f"at {error.start}; save the file as UTF-8"
        ) from None
    lines = text.removeprefix(BYTE_ORDER_MARK).rstrip(_BLANKS + "\n").split("\n")
    labels = [line.strip(_BLANKS) for line in lines]
    for number, label in enumerate(labels, start=1):
        if reason := why_not(label):
            wanted = f"; expected {num_classes} lines, one per class" if num_classes else ""
            raise LabelsError(f"{path}: line {number} {reason}{wanted}")
    if num_classes is not None and len(labels) != num_classes:
        raise LabelsError(
            f"{path}: expected {num_classes} lines, one per class, found {len(labels)}"
        )
    return labels


def labels_text(labels: Sequence[str]) -> str:
    """The text of a labels file; raises LabelsError for a label that no line can hold."""
    for index, label in enumerate(labels):
        if reason := why_not(label):
            raise LabelsError(f"label {index}, {label!r}, {reason}")
    return "".join(f"{label.strip(_BLANKS)}\n" for label in labels)


def why_not(label: str) -> str | None:
    """Why a text cannot be a label, as the end of a sentence; None if it can."""
    if not label.strip(_BLANKS):
        return "is empty"
    for character in label:
        category = unicodedata.category(character)
        if category in _REFUSED:
            return f"has control characters (U+{ord(character):04X})"
        if category == "Cs":  # half of a surrogate pair, from a file's name in another encoding
            return "is no text in UTF-8"
    return None


def clean_served(labels: Sequence[str]) -> list[str]:
    """Labels as Triton returns them, without the marks that an editor on Windows put around them.

    Triton hands on each line of `labels.txt` as it is, so a file that was edited in place can have
    a byte order mark before its first label and a carriage return behind every one.
    """
    cleaned = [label.strip(_BLANKS) for label in labels]
    return [cleaned[0].removeprefix(BYTE_ORDER_MARK), *cleaned[1:]] if cleaned else []


def repeated_labels(labels: Sequence[str]) -> list[str]:
    """Labels that several classes share, as "crane" and "maillot" are in usual ImageNet lists."""
    return sorted(label for label, count in Counter(labels).items() if count > 1)


def numbered_labels(num_classes: int) -> list[str]:
    """Labels for a model without a file of labels: class_000, class_001, …"""
    width = len(str(num_classes - 1))
    return [f"class_{index:0{width}}" for index in range(num_classes)]
