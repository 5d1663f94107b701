"""What comes behind an encoder, as part of its graph: vectors of tokens become one of the text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..format.vkgraph import DataType
from .builder import GraphBuilder, TensorRef
from .matrix import Matrix
from .sentence_transformers import Pooling, SentenceSettings
from .weights import Constant, array_constant

_LEAST_COUNT, _LEAST_LENGTH = 1e-9, 1e-12  # as sentence-transformers and torch bound what they divide by


def pool(
    b: GraphBuilder,
    x: TensorRef,
    is_text: TensorRef,
    settings: SentenceSettings,
    dense: Sequence[tuple[Matrix, Constant | None]] = (),
) -> TensorRef:
    """float32 [B, dim] of ``x`` [B, S, dim]; ``is_text`` is float32 [B, S], 1 for text and 0 for what fills up."""
    parts = [_pooled(b, x, is_text, pooling) for pooling in settings.poolings]
    pooled = parts[0]
    if len(parts) > 1:
        width = sum(part.dims[1] for part in parts)
        pooled = b.call("aten.cat.default", parts, 1, out=(pooled.dims[0], width))
    for layer, (weight, bias) in zip(settings.dense, dense, strict=True):
        pooled = b.linear(pooled, weight, bias)
        if layer.activation == "tanh":
            pooled = b.call("aten.tanh.default", pooled, out=pooled.dims)
    return _unit(b, pooled) if settings.normalize else pooled


def _pooled(b: GraphBuilder, x: TensorRef, is_text: TensorRef, pooling: Pooling) -> TensorRef:
    batch, length, width = x.dims
    if pooling == "cls":
        return b.select(x, 1, 0)
    weights = b.call("aten.unsqueeze_copy.default", is_text, -1, out=(batch, length, 1))
    if pooling == "max":
        least = array_constant("least", np.array([np.finfo(np.float32).min], np.float32))
        keep = b.cast(weights, DataType.BOOL)
        kept = b.call("aten.where.self", keep, x, least, out=x.dims)
        return b.call("aten.amax.default", kept, [1], False, out=(batch, width))
    if pooling == "last":  # where fewer tokens than all have come so far, and this one is text, there is a next one
        weights = _last(b, is_text, weights)
    total = b.call("aten.sum.dim_IntList", b.mul(x, weights), [1], False, None, out=(batch, width))
    if pooling == "last":
        return total
    count = b.call("aten.sum.dim_IntList", is_text, [1], True, None, out=(batch, 1))
    count = b.call("aten.clamp.default", count, _LEAST_COUNT, None, out=(batch, 1))
    if pooling == "mean_sqrt_len":
        count = b.call("aten.sqrt.default", count, out=(batch, 1))
    return b.call("aten.div.Tensor", total, count, out=(batch, width))


def _last(b: GraphBuilder, is_text: TensorRef, weights: TensorRef) -> TensorRef:
    """float32 [B, S, 1]: 1 for the last token of each text, 0 elsewhere."""
    so_far = b.call("aten.cumsum.default", is_text, 1, None, out=is_text.dims)
    count = b.call("aten.sum.dim_IntList", is_text, [1], True, None, out=(is_text.dims[0], 1))
    whole = b.call("aten.eq.Tensor", so_far, count, out=is_text.dims, dtype=DataType.BOOL)
    last = b.mul(b.cast(whole, DataType.FLOAT32), is_text)
    return b.call("aten.unsqueeze_copy.default", last, -1, out=weights.dims)


def _unit(b: GraphBuilder, x: TensorRef) -> TensorRef:
    one = (x.dims[0], 1)
    squares = b.call("aten.sum.dim_IntList", b.mul(x, x), [1], True, None, out=one)
    length = b.call("aten.sqrt.default", squares, out=one)
    return b.call("aten.div.Tensor", x, b.call("aten.clamp.default", length, _LEAST_LENGTH, None, out=one), out=x.dims)
