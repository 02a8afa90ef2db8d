"""`--pretrained NAME`: from a name to weights on this machine.

In: a name in the catalogue, of any repository on Hugging Face's hub, or of any object in Google's
storage. Out: the path of the weights, and the facts that their file does not contain.
"""

import dataclasses
import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from export.options import UsageError
from export.pretrained.catalogue import Published, catalogue
from export.pretrained.failure import DownloadError, UnreachableError
from export.progress import note

if TYPE_CHECKING:
    from export.classifier import Classifier

_GS = "gs://"


@dataclasses.dataclass(frozen=True)
class Fetched:
    """Weights that are on this machine."""

    path: Path  # a file, or the folder of a repository
    origin: str  # for people: where they came from
    known: Published | None  # the catalogue's row; None for weights that it does not list

    @property
    def image_size(self) -> int | None:
        """Pixels per side, where only the catalogue says them."""
        return self.known.image_size if self.known and self.known.at == "google" else None

    def applied(self, classifier: "Classifier") -> "Classifier":
        """The classifier; the catalogue adds the facts that Google's files, arrays alone, lack."""
        if self.known is None or self.known.at == "hub":
            return classifier
        return dataclasses.replace(
            classifier,
            preprocessing=self.known.preprocessing,
            tag="in1k" if self.known.classes == 1000 else "",
        )


def fetch(name: str) -> Fetched:
    """Download the weights if they are not here.

    Raises UsageError for an unknown name, DownloadError for a failure.
    """
    known = catalogue().get(name)
    try:
        return _from_google(name, known) if name.startswith(_GS) else _from_hub(name, known)
    except UnreachableError as error:
        raise DownloadError(f"{error}; {_other_way(error, known)}") from None


def _from_google(name: str, known: Published | None) -> Fetched:
    bucket, _, item = name.removeprefix(_GS).partition("/")
    if not bucket or not item.endswith(".npz") or {"", ".", ".."} & {bucket, *item.split("/")}:
        raise UsageError(f"--pretrained {name}: expected gs://BUCKET/OBJECT.npz")
    from export.pretrained.google import fetch_object  # noqa: PLC0415 - imports a web client

    note(f"{name} from Google's storage; a file that was downloaded before is used again")
    return Fetched(fetch_object(bucket, item), name, known)


def _from_hub(name: str, known: Published | None) -> Fetched:
    if known is None and "/" not in name:
        near = difflib.get_close_matches(name, catalogue(), n=1, cutoff=0.4)
        hint = f"is {near[0]} meant? " if near else ""
        raise UsageError(
            f"--pretrained {name}: no such name; {hint}--list-pretrained shows them, and any other "
            f"ViT, BiT or Mixer on Hugging Face's hub is had by ORGANISATION/NAME, as timm/{name}"
        )
    from export.pretrained.hub import fetch_repository  # noqa: PLC0415 - imports a web client

    repository = f"timm/{name}" if known else name
    note(f"{repository} from Hugging Face's hub; files that were downloaded before are used again")
    path = fetch_repository(repository)
    return Fetched(path, f"{repository.partition('@')[0]}@{path.name}", known)


def _other_way(error: UnreachableError, known: Published | None) -> str:
    """The user's alternatives when a file cannot be downloaded."""
    # docker-compose.yml sets this in the container of export.
    if os.environ.get("EXPORT_NETWORK") == "none":
        return (
            "this container has no network; for this command it gets one by "
            "EXPORT_NETWORK=bridge docker compose run --rm export …"
        )
    if error.url.endswith(".npz"):
        flags = f" {known.flags}" if known else ""
        return f"or, if you have the file already: --checkpoint FILE --name NAME{flags}"
    folder = error.url.rpartition("/")[0]
    return (
        f"or get {folder}/model.safetensors and {folder}/config.json on another machine, put both "
        "into one folder, and give that: --checkpoint FOLDER --name NAME"
    )
