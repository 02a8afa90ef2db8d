"""Labels: the names of a model's classes, one per line, in the order of the logits.

In: a text file, or nothing. Out: `labels.txt` as Triton reads it.
"""

from collections import Counter
from pathlib import Path


class LabelsError(ValueError):
    """The labels do not fit the model; the message is one sentence for the user."""


def read_labels(path: Path, num_classes: int) -> list[str]:
    """The labels of a file, in UTF-8. Raises LabelsError unless there is one per class.

    Blank lines at the end are forgiven, one in the middle is not.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise LabelsError(f"--labels {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise LabelsError(f"--labels {path}: expected text in UTF-8") from None
    labels = [line.strip() for line in text.rstrip().split("\n")]
    for number, label in enumerate(labels, start=1):
        if not label.isprintable():
            raise LabelsError(f"--labels {path}: line {number} has control characters")
        if not label:
            raise LabelsError(f"--labels {path}: line {number} is empty")
    if len(labels) != num_classes:
        raise LabelsError(
            f"--labels {path}: expected {num_classes} lines, one per class, found {len(labels)}"
        )
    return labels


def repeated_labels(labels: list[str]) -> list[str]:
    """Labels that several classes share, as "crane" and "maillot" are in usual ImageNet lists."""
    return sorted(label for label, count in Counter(labels).items() if count > 1)


def numbered_labels(num_classes: int) -> list[str]:
    """Stand-ins where no file was given: class_000, class_001, …"""
    width = len(str(num_classes - 1))
    return [f"class_{index:0{width}}" for index in range(num_classes)]
