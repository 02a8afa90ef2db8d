"""The names of ImageNet-1k's classes, for weights that were trained on it and come without names.

In: how many classes a model has, and where its file comes from. Out: a label for each class, in the
order of the logits, or None where it is not certain that these are the classes.

The names are the first word of each WordNet synset, in the order of ILSVRC 2012, made unique where
two share it (crane, maillot). WordNet 3.0 is copyright 2006 by Princeton University, whose licence
allows its use for any purpose with this notice: https://wordnet.princeton.edu/license-and-commercial-use
"""

import re
from pathlib import Path

from contracts.labels import read_labels

CLASSES = 1000
_NAMES = Path(__file__).with_name("imagenet1k.txt")
# File names of Google's weights with 1,000 classes, as its READMEs and official code give them.
_PUBLISHED = re.compile(
    r"(Mixer-[SBLH]_\d+|ViT-[SBLH]_\d+(-224)?|BiT-S-R\d+x\d|BiT-M-R\d+x\d-ILSVRC2012)\.npz"
    r"|.*--imagenet2012-.*\.npz"
)
# timm's tags and names of data sets. The data set that weights were trained on last decides.
_TAG = re.compile(r"(^|[._])(in1k|imagenet1k)($|_\d+)|(^|[._])in1k$|_in1k$|_in1k_\d+$")


def names() -> list[str]:
    """The 1,000 names."""
    return read_labels(_NAMES, CLASSES)


def names_for(num_classes: int, source: str) -> list[str] | None:
    """The names if `source`, a published file's name or timm's tag, stands for ImageNet-1k."""
    known = _PUBLISHED.fullmatch(source) or _TAG.search(source)
    return names() if num_classes == CLASSES and known else None
