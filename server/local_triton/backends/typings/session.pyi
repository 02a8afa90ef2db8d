# server/engines/onnxruntime/session.py, where it lies beside the backend.
from server.engines.onnxruntime.session import SessionError as SessionError
from server.engines.onnxruntime.session import input_name as input_name
from server.engines.onnxruntime.session import open_session as open_session
