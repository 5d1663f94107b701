"""Operators that read and write elements which indices name."""

from . import in_place, lookup, masks, put, scatter, search

__all__ = ["in_place", "lookup", "masks", "put", "scatter", "search"]
