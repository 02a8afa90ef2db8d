"""timm and transformers themselves, as oracles: random weights, saved as the libraries save them.

In: a library's name of a model. Out: the model, in eval mode, every parameter drawn anew so that
none of them can be left out unnoticed, and the folder that the library writes for it.
"""

import functools
from pathlib import Path
from typing import Any

import torch
from torch import nn

Model = Any  # the libraries have types of their own


@functools.cache
def _torchvision() -> torch.library.Library:
    """Let torchvision be imported, of which both libraries take Python code alone.

    The one on PyPI is compiled for CUDA. Beside PyTorch's build for CPUs its operators do not load,
    but two of its modules describe operators that must be known by name.
    """
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call] # untyped
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            schema = f"{operator}(Tensor dets, Tensor scores, float threshold) -> Tensor"
            library.define(schema)  # type: ignore[no-untyped-call] # untyped
    return library


def timm() -> Any:
    """The library."""
    _torchvision()
    import timm as library  # noqa: PLC0415 - after torchvision's operators are known

    return library


def transformers() -> Any:
    """The library."""
    _torchvision()
    import transformers as library  # noqa: PLC0415 - after torchvision's operators are known

    return library


def save_timm(model: Model, folder: Path, **about: Any) -> Path:
    """What `timm.models.push_to_hf_hub` would upload; `about` is more of its `config.json`."""
    timm().models._hub.save_for_hf(model, folder, model_config=about, safe_serialization=True)
    return folder


def randomized(model: nn.Module, seed: int = 0) -> Any:
    """The model with random parameters, under which activations stay of the order of 1."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=random)
            if parameter.ndim > 1 and "token" not in name and "pos" not in name:
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
            elif parameter.ndim == 1 and name.endswith(("weight", "gamma")):
                parameter.copy_(1 + 0.3 * noise)
            else:
                parameter.copy_(0.3 * noise)
    return model.eval()


def logits(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Of images [N, 3, H, W] as the library feeds them."""
    with torch.inference_mode():
        found = model(images)
    return found if isinstance(found, torch.Tensor) else found.logits
