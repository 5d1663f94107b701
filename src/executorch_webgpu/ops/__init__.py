"""The operators: importing this package registers all of them. One folder a family."""

from . import elementwise, embedding, linear, linear_q4, norm, reindex, rope, sdpa, softmax, symint

__all__ = [
    "elementwise",
    "embedding",
    "linear",
    "linear_q4",
    "norm",
    "reindex",
    "rope",
    "sdpa",
    "softmax",
    "symint",
]
