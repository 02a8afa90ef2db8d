"""Classifiers that others made: any ONNX graph of an image classifier becomes a published model."""
