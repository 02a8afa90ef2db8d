"""The names of the classes that come with weights.

In: the `config.json` of timm or transformers. Out: a label for each class, or None where the
configuration names none.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from contracts.labels import why_not
from contracts.published import CheckpointError


def from_timm(config: Mapping[str, Any], num_classes: int) -> list[str] | None:
    """The `label_names`, each replaced by its entry in `label_descriptions` if there is one."""
    names = config.get("label_names") or config.get("labels")
    if names is None:
        return None
    ordered = _by_index("label_names", names, num_classes)
    described = config.get("label_descriptions") or {}
    return _checked("label_names", [str(described.get(name, name)) for name in ordered])


def from_transformers(config: Mapping[str, Any], num_classes: int) -> list[str] | None:
    """The names in `id2label`; None if they are only the placeholders LABEL_0, LABEL_1, …"""
    names = config.get("id2label")
    if names is None:
        return None
    ordered = _by_index("id2label", names, num_classes)
    if ordered == [f"LABEL_{index}" for index in range(num_classes)]:
        return None
    return _checked("id2label", ordered)


def _by_index(what: str, names: object, num_classes: int) -> list[str]:
    if isinstance(names, Mapping):
        names = [names.get(str(index), names.get(index)) for index in range(len(names))]
    if not isinstance(names, Sequence) or isinstance(names, str) or len(names) != num_classes:
        found = f"{len(names)}" if isinstance(names, Sequence | Mapping) else repr(names)
        raise CheckpointError(f"config.json: {what}: expected {num_classes} names, found {found}")
    if None in names:
        raise CheckpointError(
            f"config.json: {what}: expected a name for each of 0 to {num_classes - 1}, found none "
            f"for {list(names).index(None)}"
        )
    return [str(name) for name in names]


def _checked(what: str, labels: list[str]) -> list[str]:
    for index, label in enumerate(labels):
        if reason := why_not(label):
            raise CheckpointError(f"config.json: {what}: the name of class {index} {reason}")
    return labels
