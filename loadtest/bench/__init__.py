"""Measurements of a running gateway that take too long for the tests; see README.md."""
