"""Pooling: the largest element or the average of windows over one to three dimensions. One kernel template."""

from . import average, max_pool

__all__ = ["average", "max_pool"]
