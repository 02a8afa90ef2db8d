"""Foreign classifiers: any ONNX graph of an image classifier becomes a published model."""
