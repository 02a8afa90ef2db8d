"""ONNX Runtime as the engine, in the gateway's own process."""
