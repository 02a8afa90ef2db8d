"""The interface between serving and inference: the `Engine` protocol, and the engines."""
