"""The seam: what serving asks of an inference engine."""
