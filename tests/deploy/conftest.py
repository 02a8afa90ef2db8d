"""Fixtures of the tests of deploy/: one real stack for all of them."""

from tests.stack import model_repository

__all__ = ["model_repository"]
