"""The names of a model's classes, and a note on where they come from.

In: the options and the classifier. Out: a label for each class, in the order of the outputs.
"""

from collections.abc import Iterator

from contracts.counting import some_of
from contracts.imagenet import names_for
from contracts.labels import LabelsError, numbered_labels, read_labels, repeated_labels
from export.options import Options
from export.progress import note
from export.sources import Source


def labels_of(options: Options, classifier: Source) -> list[str]:
    """A label for each class: from --labels, or else from where the names are known, or numbers.

    Raises `LabelsError` for a file that does not fit.
    """
    if options.labels is None:
        for labels, origin in _known_labels(options, classifier):
            if labels is not None:
                note(f"the classes' names come from {origin}: {some_of(labels, 3)}")
                return labels
        labels = numbered_labels(classifier.num_classes)
        note(f"no --labels: the classes are called {labels[0]} to {labels[-1]}")
        return labels
    try:
        labels = read_labels(options.labels, classifier.num_classes)
    except LabelsError as error:
        raise LabelsError(f"--labels {error}") from None
    if repeated := repeated_labels(labels):
        note(f"--labels: several classes share the names {', '.join(repeated[:5])}")
    return labels


def _known_labels(options: Options, classifier: Source) -> Iterator[tuple[list[str] | None, str]]:
    """The sources of the classes' names without --labels, the most certain source first."""
    yield classifier.labels, "the weights' configuration"
    path = options.checkpoint or options.onnx
    if path is not None:
        beside = path.with_suffix(".labels.txt")  # as `python -m reference train` writes them
        if beside.is_file():
            yield read_labels(beside, classifier.num_classes), str(beside)
    sources = (classifier.source, classifier.tag)
    found = (names_for(classifier.num_classes, source) for source in sources)
    yield next((names for names in found if names is not None), None), "ImageNet-1k"
