"""Numbers that a program takes out of the tensors it is given, such as ``input_pos[0].item()``.

The host has these tensors before a step, so such a number is a live integer of a graph, and no reason to wait for one.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

from .instructions import Block, Operation, Value

NUMBER = "aten::_local_scalar_dense"
# What keeps a single element.
_VIEWS = frozenset(
    {"view_copy", "et_view", "squeeze_copy", "unsqueeze_copy", "clone", "alias_copy", "_clone_dim_order"}
)


def read_elements(block: Block, given: Collection[Value]) -> Block:
    """``block`` whose numbers name an element of a given tensor where they are one: (tensor, dimension, index)."""
    places: dict[Value, tuple[Value, int]] = {v: (v, 0) for v in given if _count(v) == 1}
    operations: list[Operation] = []
    for operation in block.operations:
        if operation.stem in _VIEWS and operation.args[0] in places and not operation.outputs[0].is_live:
            places[operation.outputs[0]] = places[operation.args[0]]
        elif operation.stem == "select_copy" and operation.args[0] in given and _is_row(operation.args[0]):
            row, _, index = operation.args
            if isinstance(index, int):
                places[operation.outputs[0]] = (row, index)
        elif operation.name == NUMBER and operation.args[0] in places:
            row, index = places[operation.args[0]]
            operation = replace(operation, args=(row, 0, index))
        operations.append(operation)
    return replace(block, operations=_read(operations, block, places))


def _read(operations: list[Operation], block: Block, places: Collection[Value]) -> list[Operation]:
    """The operations without those that only took an element out."""
    wanted = {v for v in (*block.exit.values(), *(block.outputs or ()), block.condition) if isinstance(v, Value)}
    kept: list[Operation] = []
    for operation in reversed(operations):
        if operation.outputs and all(v in places and v not in wanted for v in operation.outputs):
            continue
        wanted.update(operation.inputs)
        kept.append(operation)
    return kept[::-1]


def _count(value: Value) -> int:
    return math.prod(value.tensor.sizes) if value.tensor is not None else 0


def _is_row(value: Value) -> bool:
    return value.tensor is not None and len(value.tensor.sizes) == 1
