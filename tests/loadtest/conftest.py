"""Fixtures of the tests of loadtest/: one real stack for all of them."""

from tests.stack import gateway, model_repository, triton

__all__ = ["gateway", "model_repository", "triton"]
