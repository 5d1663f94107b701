"""The operators: importing this package registers all of them. One folder a family."""

from . import (
    attention,
    elementwise,
    embedding,
    fill,
    fused_linear,
    linear,
    linear_quantized,
    norm,
    reduce,
    reindex,
    rope,
    sampling,
    scan,
    softmax,
    sort,
    symint,
)

__all__ = [
    "attention",
    "elementwise",
    "embedding",
    "fill",
    "fused_linear",
    "linear",
    "linear_quantized",
    "norm",
    "reduce",
    "reindex",
    "rope",
    "sampling",
    "scan",
    "softmax",
    "sort",
    "symint",
]
