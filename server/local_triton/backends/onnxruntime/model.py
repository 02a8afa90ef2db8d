"""A Triton backend, written in Python, that serves NAME/VERSION/model.onnx with ONNX Runtime.

It has the name of NVIDIA's C++ backend, `onnxruntime`, and reads the same config.pbtxt, so that a
model repository made for NVIDIA's image is also served by a Triton that has only the Python
backend. In and out: as batched.py says. server/engines/onnxruntime/session.py says which parts of
the config are used; Triton's backend folder has a copy of it.
"""

from __future__ import annotations

from batched import Batched

from server.engines.onnxruntime.session import open_session


class TritonPythonModel(Batched):
    """One instance of one model; the class that Triton's Python backend looks for."""

    open_session = staticmethod(open_session)
