"""Operators that move elements without changing them."""

from . import joining, order, parts, repetition, same_order, triangle

__all__ = ["joining", "order", "parts", "repetition", "same_order", "triangle"]
