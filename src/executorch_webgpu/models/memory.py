"""Which intermediate tensors of a graph share memory, for runtimes that follow the file's ``mem_obj_id``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from ..format.vkgraph import OperatorCall, Value, ValueList, VkTensor


def share_memory(
    values: Sequence[Value],
    chain: Sequence[OperatorCall],
    inputs: Sequence[int],
    outputs: Sequence[int],
    state: set[int],
) -> tuple[Value, ...]:
    """The values with ``mem_obj_id`` set: tensors with one id are never in use in the same call.

    Inputs and ``state`` (constants that the graph writes) have memory of their own; other constants have none.
    """
    calls = [list(_tensors(values, call.args)) for call in chain]
    last_use = {tensor: number for number, tensors in enumerate(calls) for tensor in tensors}
    last_use |= dict.fromkeys(outputs, len(chain))
    placed = {tensor: number for number, tensor in enumerate([*inputs, *sorted(state)])}
    own = set(placed)
    capacity = dict.fromkeys(placed.values(), 0)
    free: list[int] = []
    for number, tensors in enumerate(calls):
        for tensor in tensors:
            value = values[tensor]
            if not isinstance(value, VkTensor) or value.constant_id >= 0 or tensor in placed:
                continue
            if free:
                placed[tensor] = min(free, key=lambda block: abs(capacity[block] - value.nbytes))
                free.remove(placed[tensor])
            else:
                placed[tensor] = len(capacity)
            block = placed[tensor]
            capacity[block] = max(capacity.get(block, 0), value.nbytes)
        # Only after all of a call's outputs have their places: an output never lies over an input.
        ended = {tensor for tensor in tensors if last_use[tensor] == number and tensor in placed} - own
        free.extend(sorted(placed[tensor] for tensor in ended))
    return tuple(
        dataclasses.replace(value, mem_obj_id=placed[i]) if isinstance(value, VkTensor) and i in placed else value
        for i, value in enumerate(values)
    )


def _tensors(values: Sequence[Value], ids: Sequence[int]) -> Iterator[int]:
    """The ids of the tensors among the arguments of a call, and in lists there."""
    for id in ids:
        value = values[id]
        if isinstance(value, VkTensor):
            yield id
        elif isinstance(value, ValueList):
            yield from _tensors(values, value.items)
