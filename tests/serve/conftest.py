"""Fixtures of the server's tests; what they are made of is in conftest_serve.py, which tests can import."""

from conftest_serve import launch, release, server

__all__ = ["launch", "release", "server"]
