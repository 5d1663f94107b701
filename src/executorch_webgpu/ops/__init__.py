"""The operators: importing this package registers all of them. One folder a family."""

from . import (
    attention,
    convolution,
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
    softmax,
    symint,
)

__all__ = [
    "attention",
    "convolution",
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
    "softmax",
    "symint",
]
