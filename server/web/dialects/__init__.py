"""The protocols of other servers, each a thin module over the same work as /classify.

In: `Settings.dialects`. Out: the routes of those that are on, and the form of their errors. A new
dialect is one module and one line in `ALL`.
"""

from collections.abc import Iterable

from server.web.dialects import huggingface, nim, oip, sagemaker, tfserving, torchserve
from server.web.dialects.dialect import Dialect

ALL: dict[str, Dialect] = {
    "oip": oip.DIALECT,
    "huggingface": huggingface.DIALECT,
    "torchserve": torchserve.DIALECT,
    "tfserving": tfserving.DIALECT,
    "sagemaker": sagemaker.DIALECT,
    "nim": nim.DIALECT,
}


def chosen(names: str) -> list[Dialect]:
    """The dialects that a setting names, with commas between; `none` for none of them."""
    return [] if names == "none" else [ALL[name] for name in names.split(",")]


def of_path(dialects: Iterable[Dialect], path: str) -> Dialect | None:
    """The dialect that a path belongs to, whether or not there is such a path."""
    for dialect in dialects:
        if dialect.paths.match(path):
            return dialect
    return None
