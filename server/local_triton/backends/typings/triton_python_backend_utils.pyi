# The part of Triton's Python backend that our backend uses; the module exists only inside its
# process. https://github.com/triton-inference-server/python_backend

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

class TritonModelException(Exception): ...  # noqa: N818  (Triton's name)

class Tensor:
    def __init__(self, name: str, array: npt.NDArray[Any]) -> None: ...
    def as_numpy(self) -> npt.NDArray[Any]: ...

class InferenceRequest:
    def requested_output_names(self) -> list[str]: ...

class InferenceResponse:
    def __init__(self, output_tensors: Sequence[Tensor]) -> None: ...

def get_input_tensor_by_name(request: InferenceRequest, name: str) -> Tensor: ...
