"""The weights that the options name, read as a classifier.

In: the options, and what was fetched for them. Out: a classifier in PyTorch, or an ONNX graph. What
a file cannot say of itself is taken from the options.
"""

from export.checkpoint import load_classifier
from export.foreign.classifier import read_onnx
from export.foreign.reading import Asked
from export.formats.interpretation import Stated
from export.options import Options
from export.preprocessing import Normalization, Preprocessing
from export.pretrained.fetching import Fetched
from export.progress import note
from export.random_weights import random_classifier
from export.sources import Source


def read_weights(options: Options, fetched: Fetched | None) -> Source:
    """The classifier of --pretrained, which was `fetched`, of --onnx, --checkpoint or --model."""
    if fetched is not None:
        size = options.image_size or fetched.image_size
        return fetched.applied(load_classifier(fetched.path, size, _stated(options)))
    if options.onnx is not None:
        preprocessing = Preprocessing(rounding="torchvision")
        classifier = read_onnx(options.onnx, _asked(options), preprocessing)
        if options.resize is None:
            note(
                "no --resize: images are squashed to the square; torchvision's models mostly want "
                "--resize shortest --crop-fraction 0.875"
            )
        return classifier
    if options.checkpoint is not None:
        return load_classifier(options.checkpoint, options.image_size, _stated(options))
    return random_classifier(
        options.model or "", options.image_size, options.num_classes, options.seed
    )


def _stated(options: Options) -> Stated:
    return Stated(options.gelu, options.heads, _normalization(options))


def _normalization(options: Options) -> Normalization | None:
    if options.mean is None or options.std is None:
        return None
    return Normalization(options.mean, options.std)


def _asked(options: Options) -> Asked:
    return Asked(
        _normalization(options),
        options.layout,
        options.channel_order,
        options.activation,
        options.output,
        options.image_size,
    )
