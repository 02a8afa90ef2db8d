"""The path by which the wheel's tritonserver reads a model repository.

In: any path. Out: a path that Triton's Python backend can use. The backend passes paths to a shell
as they are: a blank or an apostrophe in the path, or in the name of one model's folder, keeps every
model from loading. So an odd path gets a link, and a model with an odd name is left out, with the
reason.
"""

import logging
import re
from pathlib import Path

from server.local_triton.launch import LocalTritonError

log = logging.getLogger(__name__)

# Everything but letters and digits of any language and marks that mean nothing to a shell.
ODD = re.compile(r"[^\w.,:=@%+-]")


def check_repository(repository: Path) -> None:
    """Refuse a folder that cannot be a model repository.

    Raises:
        LocalTritonError: it does not exist, or no model in it has a config.pbtxt.
    """
    if not repository.is_dir():
        raise LocalTritonError(f"the model repository {repository} is not a folder")
    if not any(repository.glob("*/config.pbtxt")):
        raise LocalTritonError(
            f"the model repository {repository} holds no model (NAME/config.pbtxt); "
            "`python -m export --help` says how to add one"
        )


def usable_path(repository: Path, folder: Path) -> Path:
    """The repository itself, or links to it or to its models, made in `folder`.

    Raises:
        LocalTritonError: every model has a name that Triton cannot use.
    """
    repository = repository.resolve()
    models = sorted(config.parent for config in repository.glob("*/config.pbtxt"))
    odd = [model for model in models if ODD.search(model.name)]
    for model in odd:
        log.error("%s", _reason(model))
    if models and len(odd) == len(models):
        raise LocalTritonError(f"{_reason(odd[0])}; no other model is there")
    if odd:
        link = folder / "models"
        link.mkdir()
        for model in models:
            if model not in odd:
                (link / model.name).symlink_to(model)
        return link
    if any(ODD.search(part) for part in repository.parts[1:]):
        link = folder / "models"
        link.symlink_to(repository)
        return link
    return repository


def _reason(model: Path) -> str:
    found = "".join(sorted(set(ODD.findall(model.name))))
    return (
        f"model {model.name!r} is not served: its folder's name has {found!r}, and the wheel's "
        "Triton can use letters, digits and . _ - + = , : @ % alone; rename the folder, and the "
        "name in its config.pbtxt"
    )
