"""Operators that compute each element of the output from one element of every input."""

from . import activations, binary, bounds, cast, chain, integers, quotients, slopes, ternary, unary

__all__ = ["activations", "binary", "bounds", "cast", "chain", "integers", "quotients", "slopes", "ternary", "unary"]
