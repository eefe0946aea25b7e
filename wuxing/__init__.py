"""Wuxing: a large model through its whole life, with checkable evidence at every stage."""

__version__ = "0.1.0"
