"""What torch calls our operators, so that references can be held against it."""

from __future__ import annotations

import functools
from typing import Any

import torch

from executorch_webgpu.ops.registry import find

_OF_RESULTS = ("dtype", "layout", "device", "pin_memory", "memory_format", "non_blocking")


@functools.cache
def torch_overload(name: str) -> Any:
    """The overload of torch whose arguments are those of the operator ``name``; None where torch has none."""
    namespace, _, rest = name.partition(".")
    stem, _, overload = rest.rpartition(".")
    op = find(name)
    if namespace != "aten" or op is None:
        return None
    found = getattr(getattr(torch.ops.aten, stem, None), overload, None)
    if found is None or len(found._schema.arguments) != len(op.parameters) - 1:
        return None
    return found


@functools.cache
def functional_name(name: str, overload: str) -> str:
    """The operator that returns what ExecuTorch's ``name`` (as in ``aten::max``) and ``overload`` write to outputs."""
    namespace, _, stem = name.partition("::")
    packet = getattr(torch.ops.aten, stem, None) if namespace == "aten" else None
    if packet is None or overload not in packet.overloads():
        return f"{namespace}.{stem}.{overload.removesuffix('out').removesuffix('_') or 'default'}"
    inputs = _inputs(getattr(packet, overload))
    for other in packet.overloads():
        found = getattr(packet, other)
        if not any(a.is_out for a in found._schema.arguments) and _inputs(found) == inputs:
            return f"{namespace}.{stem}.{other}"
    return f"{namespace}.{stem}.{overload}"


def _inputs(overload: Any) -> list[tuple[str, str]]:
    """Names and types of arguments, without outputs and without what outputs say of themselves."""
    return [
        (argument.name, str(argument.type))
        for argument in overload._schema.arguments
        if not argument.is_out and argument.name not in _OF_RESULTS
    ]
