"""A Triton backend, written in Python, that serves NAME/VERSION/model.onnx with OpenVINO.

It has the name of NVIDIA's C++ backend, `openvino`, which reads the same file where config.pbtxt
names it as `default_model_filename`. In and out: as batched.py says.
server/engines/openvino/session.py says which parts of the config are used; Triton's backend folder
has a copy of it.
"""

from __future__ import annotations

from batched import Batched

from server.engines.openvino.session import open_session


class TritonPythonModel(Batched):
    """One instance of one model; the class that Triton's Python backend looks for."""

    open_session = staticmethod(open_session)
