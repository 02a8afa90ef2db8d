"""Logs, metrics and traces of each request."""
