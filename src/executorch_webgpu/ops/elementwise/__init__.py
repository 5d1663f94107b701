"""Operators that compute each element of the output from one element of every input."""

from . import binary, cast, chain, unary, where

__all__ = ["binary", "cast", "chain", "unary", "where"]
