"""The operators: importing this package registers all of them. One folder a family."""

from . import (
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
    rope_attention,
    sampling,
    sdpa,
    softmax,
    symint,
)

__all__ = [
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
    "rope_attention",
    "sampling",
    "sdpa",
    "softmax",
    "symint",
]
