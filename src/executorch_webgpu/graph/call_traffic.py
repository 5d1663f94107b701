"""The bytes that one operator call must move at least, whatever kernels do it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..ops.values import Dims, SymInt, Tensor
from .build import PREPACK, Graph, OpCall


def call_bytes(graph: Graph, call: OpCall, dims: Mapping[int, Dims], symints: Mapping[int, int]) -> int:
    """Bytes read and written: each tensor that a call reads or gives once, at the ``dims`` of a step, by id.

    Of KV caches the rows up to the last new one count, and those that are written; of a table the rows that are looked
    up. Other memory that a call changes in place does not count, for how much of it is touched depends on values: pages
    of an engine's pool, for one. ``symints``: values, by id.
    """
    if call.name == PREPACK:
        return 0
    changed = {tensor.id for tensor in call.mutated}
    by_rows = {tensor.id for name in call.op.reads_rows_of if (tensor := call.named[name]) is not None}
    total = _cache_bytes(call, dims, symints)
    for tensor in {each.id: each for each in (*call.inputs, *call.outputs)}.values():
        if tensor.id in by_rows:
            rows = max(1, *tensor.max_dims[:1])
            total += tensor.max_nbytes // rows * min(rows, _rows_read(call, dims))
        elif tensor.id not in changed:
            total += _nbytes(tensor, dims)
    return total


def _cache_bytes(call: OpCall, dims: Mapping[int, Dims], symints: Mapping[int, int]) -> int:
    if call.op.position is None:
        return 0
    position = call.named[call.op.position]
    first = symints.get(position.id, position.value) if isinstance(position, SymInt) else position
    total = 0
    for cache, rows in call.op.caches.items():
        written = call.named[cache]
        new = dims.get(call.named[rows].id, call.named[rows].max_dims)[1]
        for tensor in (written, written.scales):
            if tensor is not None:
                row = tensor.max_nbytes // max(1, tensor.max_dims[1])
                total += row * (first + 2 * new)  # new ones are written, and then read
    return total


def _rows_read(call: OpCall, dims: Mapping[int, Dims]) -> int:
    """Rows of tables that a call looks up: one for each index, or for each token of its output [1, S, ...]."""
    if call.op.table is not None:
        indices = call.named[call.op.table.indices]
        if isinstance(indices, Tensor):
            return math.prod(dims.get(indices.id, indices.max_dims))
    sizes = dims.get(call.outputs[0].id, call.outputs[0].max_dims) if call.outputs else ()
    return sizes[1] if len(sizes) > 2 else 1


def _nbytes(tensor: Tensor, dims: Mapping[int, Dims]) -> int:
    return math.prod(dims.get(tensor.id, tensor.max_dims)) * tensor.element.itemsize
