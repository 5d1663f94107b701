"""Operators that move elements without changing them."""

from . import gather, same_order

__all__ = ["gather", "same_order"]
