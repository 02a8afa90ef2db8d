"""A Triton backend, written in Python, that serves NAME/VERSION/model.jax with JAX.

JAX needs numpy 2 and Triton's Python backend numpy < 2, so JAX runs in a process of its own, of
another Python environment: `worker.py` beside this file, to which pixels go through a pipe, and
from which logits and probabilities come back. In: the requests of one dynamic batch, each with the
tensor `image` uint8 [N, H, W, 3]. Out: one response per request with the outputs that it asked for.

The Python with JAX is the parameter `python` of the model's config.pbtxt, or else the environment
variable JAX_PYTHON. JAX_PLATFORMS says which device it computes on; JAX chooses where it is
not set.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from standstill import Standstill

# Added to Triton's niceness: code that accepts requests runs first and so can refuse in time.
NICENESS = 10
OUTPUTS = ("logits", "probabilities")
WORKER = Path(__file__).with_name("worker.py")


class TritonPythonModel:
    """One instance of one model; the class that Triton's Python backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model; `args` and what is raised are as in the `onnxruntime` backend."""
        config = json.loads(args["model_config"])
        inputs = [tensor["name"] for tensor in config["input"]]
        outputs = {tensor["name"] for tensor in config["output"]}
        if inputs != ["image"] or not outputs <= set(OUTPUTS):
            raise pb_utils.TritonModelException(
                f"config.pbtxt declares the inputs {inputs} and the outputs {sorted(outputs)}; "
                f"image and {' and '.join(OUTPUTS)} are expected"
            )
        file = config.get("default_model_filename") or "model.jax"
        path = f"{args['model_repository']}/{args['model_version']}/{file}"
        # Encoded here, since the stub's Python takes file names for ASCII whatever the locale says.
        if not os.path.isfile(path.encode()):  # noqa: PTH113 - bytes, as above
            raise pb_utils.TritonModelException(f"{path} is missing")
        parameters = {
            key: value["string_value"] for key, value in config.get("parameters", {}).items()
        }
        python = parameters.get("python") or os.environ.get("JAX_PYTHON")
        if not python:
            raise pb_utils.TritonModelException(
                "which Python has JAX? Say so in the parameter python of config.pbtxt, or in the "
                "environment variable JAX_PYTHON"
            )
        most = str(max(config.get("max_batch_size", 1), 1))
        # JAX's Python must not find Triton's own libraries.
        environment = {k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"}
        try:
            self._worker = subprocess.Popen(  # noqa: S603  a program that the administrator names
                [python, WORKER, path.encode(), most, str(NICENESS)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
            )
        except OSError as error:
            raise pb_utils.TritonModelException(f"cannot run {python}: {error.strerror}") from None
        about = self._read_line()
        if "error" in about:
            raise pb_utils.TritonModelException(f"{path}: {about['error']}")
        self._classes = int(about["classes"])
        declared = config["input"][0]["dims"]
        if [int(side) for side in declared] != about["shape"]:
            raise pb_utils.TritonModelException(
                f"config.pbtxt declares images of {declared}, {file} takes {about['shape']}"
            )
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
            pb_utils.get_input_tensor_by_name(request, "image").as_numpy() for request in requests
        ]
        found = self._run(images[0] if len(images) == 1 else np.concatenate(images))
        responses, start = [], 0
        for request, image in zip(requests, images, strict=True):
            stop = start + len(image)
            tensors = [
                pb_utils.Tensor(name, np.ascontiguousarray(found[name][start:stop]))
                for name in request.requested_output_names()
            ]
            responses.append(pb_utils.InferenceResponse(tensors))
            start = stop
        return responses

    def finalize(self) -> None:
        """Close the worker's input: then the worker ends."""
        if self._worker.stdin is not None:
            self._worker.stdin.close()
        try:
            self._worker.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._worker.kill()

    def _run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        pipe = self._worker.stdin
        if pipe is None:
            raise pb_utils.TritonModelException("the worker has no input")
        try:
            pipe.write(len(batch).to_bytes(4, "little"))
            pipe.write(np.ascontiguousarray(batch).data)
            pipe.flush()
            size = 4 * len(batch) * self._classes
            logits, probabilities = self._read(size), self._read(size)
        except (BrokenPipeError, EOFError):
            code = self._worker.poll()
            raise pb_utils.TritonModelException(
                f"JAX's process ended with status {code}; its last words are in Triton's log"
            ) from None
        shape = (len(batch), self._classes)
        pairs = zip(OUTPUTS, (logits, probabilities), strict=True)
        return {name: np.frombuffer(data, np.float32).reshape(shape) for name, data in pairs}

    def _read(self, size: int) -> bytes:
        pipe = self._worker.stdout
        data = pipe.read(size) if pipe is not None else b""
        if len(data) < size:
            raise EOFError
        return data

    def _read_line(self) -> dict[str, Any]:
        """The first line of the worker: the properties of its program, or an error."""
        pipe = self._worker.stdout
        line = pipe.readline() if pipe is not None else b""
        if not line:
            code = self._worker.wait()
            return {"error": f"JAX's process ended with status {code}; see Triton's log for why"}
        about: dict[str, Any] = json.loads(line)
        return about
