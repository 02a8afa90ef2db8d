"""The common part of the backends of the local Triton that compute in their own process.

In: the requests of one dynamic batch, each with one tensor whose first axis is the batch. Out: one
response per request with the outputs that it asked for. A copy of this module lies beside each of
these backends. Triton starts one process per instance, in an environment of its own (Python, numpy
< 2). Its threads run at a lower priority than Triton itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils
from standstill import Standstill

from server.engines.opening import SessionError, input_name

# Added to Triton's niceness: code that accepts requests runs first and so can refuse in time.
NICENESS = 10


class Session(Protocol):
    """An opened model of any engine."""

    def run(
        self, names: Sequence[str], inputs: dict[str, npt.NDArray[Any]]
    ) -> list[npt.NDArray[Any]]:
        """The outputs of these names."""


class Batched:
    """One instance of one model; each backend adds how a model is opened."""

    # Opens a model, given its config (Triton's JSON), its folder and a version.
    open_session: Callable[[dict[str, Any], Path, str], Session]

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model.

        Args:
            args: Triton's `model_config` (JSON), `model_repository` (the model's own folder),
                `model_version` and more.

        Raises:
            pb_utils.TritonModelException: the model cannot be served; Triton reports the message.
        """
        if int(np.__version__.split(".")[0]) >= 2:
            # With numpy 2 this release of the Python backend returns empty outputs, silently.
            raise pb_utils.TritonModelException(
                f"Triton's environment has numpy {np.__version__}, its Python backend needs < 2"
            )
        config = json.loads(args["model_config"])
        os.nice(NICENESS)
        try:
            self._input = input_name(config)
            self._session = self.open_session(
                config, Path(args["model_repository"]), args["model_version"]
            )
        except SessionError as error:
            raise pb_utils.TritonModelException(str(error)) from None
        self._standstill = Standstill()

    def execute(
        self, requests: list[pb_utils.InferenceRequest]
    ) -> list[pb_utils.InferenceResponse]:
        """Run one dynamic batch; an exception here is Triton's error answer to each request."""
        with self._standstill.call():
            return self._answers(requests)

    def _answers(
        self, requests: list[pb_utils.InferenceRequest]
    ) -> list[pb_utils.InferenceResponse]:
        images = [
            pb_utils.get_input_tensor_by_name(request, self._input).as_numpy()
            for request in requests
        ]
        wanted = [request.requested_output_names() for request in requests]
        names = list({name for request_names in wanted for name in request_names})
        batch = images[0] if len(images) == 1 else np.concatenate(images)
        outputs = dict(zip(names, self._session.run(names, {self._input: batch}), strict=True))
        responses = []
        start = 0
        for image, request_names in zip(images, wanted, strict=True):
            stop = start + len(image)
            tensors = [pb_utils.Tensor(name, outputs[name][start:stop]) for name in request_names]
            responses.append(pb_utils.InferenceResponse(tensors))
            start = stop
        return responses
