"""The seam between serving and inference: what serving asks of an engine, and the engines."""
