"""A Triton backend, written in Python, that serves NAME/VERSION/model.onnx with OpenVINO.

It bears the name of NVIDIA's C++ backend, `openvino`, which reads the same file where config.pbtxt
names it as `default_model_filename`. In and out: as batched.py says. Of the config is heeded what
server/engines/openvino/session.py says, of which Triton's backend folder has a copy.
"""

from __future__ import annotations

from batched import Batched

from server.engines.openvino.session import open_session


class TritonPythonModel(Batched):
    """One instance of one model; the class that Triton's Python backend looks for."""

    open_session = staticmethod(open_session)
