"""Operators that compute each element of the output from one element of every input."""

from . import binary, cast, unary

__all__ = ["binary", "cast", "unary"]
