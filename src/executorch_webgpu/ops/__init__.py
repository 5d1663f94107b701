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
    q8ta,
    quantize,
    reduce,
    reindex,
    rope,
    sampling,
    softmax,
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
    "q8ta",
    "quantize",
    "reduce",
    "reindex",
    "rope",
    "sampling",
    "softmax",
    "symint",
]
