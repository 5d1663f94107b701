"""Operators that read and write elements which indices name."""

from . import lookup

__all__ = ["lookup"]
