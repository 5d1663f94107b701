"""Operators that read and write elements which indices name."""

from . import lookup, masks, put, scatter

__all__ = ["lookup", "masks", "put", "scatter"]
