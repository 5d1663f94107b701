"""Which dims of a graph's inputs may change: found by planning with smaller ones.

A file says only that a shape has an upper bound, not which of its dims vary. Planning needs no GPU, so we ask it:
a dim that can shrink without any operator objecting is dynamic.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from ..errors import Error
from ..gpu.capabilities import Features, Limits
from ..ops.plan import Planning
from ..ops.values import Tensor
from .build import Graph
from .execute import plan_graph
from .resize import LivePlans

HOST_ELEMENTS = 1 << 24  # of an integer input that is tried with zeros; a larger one is no list of tokens
Dim = tuple[int, int]  # (position of the input, dimension)


def dynamic_dims(graph: Graph, bounded: Sequence[int]) -> dict[int, tuple[int, ...]]:
    """For each input position in ``bounded``, the dims that may be smaller than their maximum."""
    plans = plan_graph(graph, Planning(Features.none(), Limits.floor()))
    for value in graph.inputs:
        if isinstance(value, Tensor) and value.dtype == "int32" and value.numel <= HOST_ELEMENTS:
            plans.set_host(value, np.zeros(value.max_dims, np.int32))
    candidates: defaultdict[int, list[Dim]] = defaultdict(list)  # by size: equal bounds are often one symbol
    for position in bounded:
        value = graph.inputs[position]
        if isinstance(value, Tensor):
            for dim, size in enumerate(value.max_dims):
                if size > 1:
                    candidates[size].append((position, dim))
    found: set[Dim] = set()
    for size, dims in candidates.items():
        # One less, not 1: a size of 1 could pass by broadcasting.
        alone = [d for d in dims if _plans_at(plans, [d], size - 1)]
        found.update(alone or (dims if len(dims) > 1 and _plans_at(plans, dims, size - 1) else []))
    return {p: tuple(sorted(d for q, d in found if q == p)) for p in bounded}


def _plans_at(plans: LivePlans, dims: Sequence[Dim], size: int) -> bool:
    inputs = plans.graph.inputs
    touched = {p: inputs[p] for p, _ in dims}
    try:
        for position, tensor in touched.items():
            assert isinstance(tensor, Tensor)
            here = {d for p, d in dims if p == position}
            plans.set_dims(tensor, [size if i in here else m for i, m in enumerate(tensor.max_dims)])
        plans.update()
        return True
    except Error:
        return False
    finally:
        for tensor in touched.values():
            assert isinstance(tensor, Tensor)
            plans.set_dims(tensor, tensor.max_dims)
        plans.update()
