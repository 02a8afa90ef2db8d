"""The servers that are started for a measurement, and their processes."""
