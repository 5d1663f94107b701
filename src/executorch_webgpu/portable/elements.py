"""The elements of tensors as their bytes lie in a file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..format import program_schema as schema
from .dtypes import numpy_dtype


def in_dim_order(elements: np.ndarray, dims: Sequence[int], dim_order: Sequence[int]) -> np.ndarray:
    """``elements`` [n], which lie outermost dimension first as ``dim_order`` names them, as a view with ``dims``."""
    stored = elements.reshape([dims[d] for d in dim_order])
    return stored.transpose(np.argsort(dim_order)) if len(dims) > 1 else stored


def file_elements(described: schema.Tensor, data: memoryview, method: str) -> np.ndarray:
    """The elements of a tensor whose bytes in the file are ``data``, in the order of its dims.

    ``dim_order`` counts for the bytes of the file only: a view that the exporter dropped is one of the tensor, not of
    how its memory was to be laid out.
    """
    elements = np.frombuffer(data, numpy_dtype(described, method))
    return in_dim_order(elements, described.sizes, described.dim_order or range(len(described.sizes)))
