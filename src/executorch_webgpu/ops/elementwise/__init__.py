"""Operators that compute each element of the output from one element of every input."""

from . import binary, cast, unary, where

__all__ = ["binary", "cast", "unary", "where"]
