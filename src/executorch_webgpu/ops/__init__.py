"""The operators: importing this package registers all of them. One folder a family."""

from . import (
    attention,
    elementwise,
    embedding,
    fill,
    fused_linear,
    indexing,
    linear,
    linear_quantized,
    norm,
    reduce,
    reindex,
    rope,
    sampling,
    scan,
    softmax,
    symint,
)

__all__ = [
    "attention",
    "elementwise",
    "embedding",
    "fill",
    "fused_linear",
    "indexing",
    "linear",
    "linear_quantized",
    "norm",
    "reduce",
    "reindex",
    "rope",
    "sampling",
    "scan",
    "softmax",
    "symint",
]
