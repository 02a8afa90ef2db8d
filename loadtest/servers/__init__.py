"""Servers that are started for a measurement, and the processes they consist of."""
