"""The likeliest token of every row of logits, found where they lie: greedy texts bring no logits to the host."""

from __future__ import annotations

from dataclasses import replace

from ..ops.values import Tensor
from .build import Graph, make_call
from .fusion.dataflow import new_ids, with_calls

_MAX = "aten.max.dim"


def with_likeliest(graph: Graph) -> Graph:
    """``graph`` whose one output is logits [..., V] with two more outputs: the largest of each row, and its token."""
    (logits,) = graph.outputs
    assert isinstance(logits, Tensor)
    ids, rows = new_ids(graph), logits.max_dims[:-1]
    largest, token = Tensor(next(ids), logits.dtype, rows), Tensor(next(ids), "int32", rows)
    call = make_call(_MAX, (logits, logits.rank - 1, False, [largest, token]))
    return replace(with_calls(graph, [*graph.calls, call]), outputs=(logits, largest, token))
