"""Vectors of a text's tokens to one of the text, in NumPy: for programs that give the last hidden state."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..models.sentence_transformers import Pooling

Floats = NDArray[np.float32]
_LEAST = 1e-12  # of a length that vectors are divided by, as in torch.nn.functional.normalize

# Of hidden float32 [S, dim], all of whose rows are text.
_BY_NAME: dict[Pooling, Callable[[Floats], Floats]] = {
    "mean": lambda hidden: hidden.mean(axis=0),
    "cls": lambda hidden: hidden[0],
    "max": lambda hidden: hidden.max(axis=0),
    "mean_sqrt_len": lambda hidden: hidden.sum(axis=0) / np.sqrt(np.float32(len(hidden))),
    "last": lambda hidden: hidden[-1],
}


def pooled(hidden: Floats, lengths: Sequence[int], poolings: Sequence[Pooling]) -> Floats:
    """float32 [B, dim * len(poolings)] of ``hidden`` [B, S, dim], whose text b is its first ``lengths[b]`` rows."""
    rows = [hidden[b, :length] for b, length in enumerate(lengths)]
    return np.stack([np.concatenate([_BY_NAME[pooling](row) for pooling in poolings]) for row in rows])


def unit_rows(vectors: Floats) -> Floats:
    """float32 [n, dim] with every row divided by its length."""
    lengths = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1, keepdims=True))
    unit: Floats = (vectors / np.maximum(lengths, _LEAST)).astype(np.float32)
    return unit
