"""The operators: importing this package registers all of them. One folder a family."""

from . import (
    attention,
<<<<<<< HEAD
    distance,
=======
    convolution,
>>>>>>> conv
    elementwise,
    embedding,
    fill,
    fused_linear,
    indexing,
    linear,
    linear_quantized,
    norm,
<<<<<<< HEAD
    pad,
    pool,
=======
    q8ta,
    quantize,
>>>>>>> quant
    reduce,
    reindex,
    resample,
    rope,
    sampling,
    scan,
    softmax,
    symint,
)

__all__ = [
    "attention",
<<<<<<< HEAD
    "distance",
=======
    "convolution",
>>>>>>> conv
    "elementwise",
    "embedding",
    "fill",
    "fused_linear",
    "indexing",
    "linear",
    "linear_quantized",
    "norm",
<<<<<<< HEAD
    "pad",
    "pool",
=======
    "q8ta",
    "quantize",
>>>>>>> quant
    "reduce",
    "reindex",
    "resample",
    "rope",
    "sampling",
    "scan",
    "softmax",
    "symint",
]
