"""Scales that torch states as float64 although they are float32 numbers, so that the device may compute with them.

``choose_qparams_per_token_asymmetric`` divides in float32 and widens; KV caches keep float32 scales and widen them for
each use. Where nothing but quantization reads such a tensor, or a cast back, no bit is lost by leaving it float32.
"""

from __future__ import annotations

from collections import defaultdict

from ...format import program_schema as schema
from .instructions import Block, Operation, Value

_NARROW = (schema.ScalarType.FLOAT, schema.ScalarType.HALF, schema.ScalarType.BFLOAT16)
_CHOICES = frozenset({"choose_qparams_per_token_asymmetric", "_choose_qparams_per_token_asymmetric_impl"})
_READERS = frozenset(
    f"{direction}_per_{part}"
    for direction in ("quantize", "dequantize")
    for part in ("token", "channel", "tensor", "channel_group")
)
_CASTS = frozenset({"_to_dim_order_copy", "_to_copy"})
_VIEWS = frozenset({"et_view", "view_copy", "squeeze_copy", "unsqueeze_copy"})
_SCALES = 1  # the argument of the readers that scales are


def narrow_scales(block: Block) -> frozenset[Value]:
    """The float64 values of a block that may be float32."""
    made_by = {value: operation for operation in block.operations for value in operation.results}
    readers: defaultdict[Value, list[Operation]] = defaultdict(list)
    for operation in block.operations:
        for value in operation.inputs:
            readers[value].append(operation)
    kept = {v for v in (*block.exit.values(), *(block.outputs or ()), block.condition) if isinstance(v, Value)}
    found = {v for v, operation in made_by.items() if _is_wide(v) and v not in kept and _is_narrow_by(operation)}
    changed = True
    while changed:
        wrong = {
            value
            for value in found
            if not all(_reads_scales(reader, value, found) for reader in readers[value])
            or (made_by[value].stem in _VIEWS and made_by[value].args[0] not in found)
        }
        found -= wrong
        changed = bool(wrong)
    return frozenset(found)


def _is_wide(value: Value) -> bool:
    return value.tensor is not None and value.tensor.scalar_type is schema.ScalarType.DOUBLE


def _is_narrow_by(operation: Operation) -> bool:
    """Whether the results of an operation are float32 numbers, if its input's are."""
    if operation.stem in _CHOICES or operation.stem in _VIEWS:
        return True
    source = operation.args[0] if operation.stem in _CASTS else None
    return isinstance(source, Value) and source.tensor is not None and source.tensor.scalar_type in _NARROW


def _reads_scales(operation: Operation, value: Value, narrow: set[Value]) -> bool:
    if operation.stem in _READERS:
        return [i for i, arg in enumerate(operation.args) if arg is value] == [_SCALES]
    if operation.stem in _VIEWS:
        return operation.outputs[0] in narrow
    (out, *_) = operation.outputs or (None,)
    to = out.tensor.scalar_type if out is not None and out.tensor is not None else None
    return operation.stem in _CASTS and to in _NARROW
