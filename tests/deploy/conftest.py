"""Fixtures of the tests of deploy/: one real stack for all of them."""

from tests.stack import gateway, guarded, model_repository, triton

__all__ = ["gateway", "guarded", "model_repository", "triton"]
