"""Reductions over any set of dimensions: one kernel template, in several passes where that is faster."""

from . import extremes, moments, sums

__all__ = ["extremes", "moments", "sums"]
