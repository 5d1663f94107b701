"""Bounds of integers, which are 64 bits wide in a program and 32 on the device.

An operator on 64-bit integers may run on the device only if its results certainly fit: the sum of a mask does, a hash
does not. What comes from outside a graph is looked at when it is handed in, so it fits, or the call is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np

from ...format import program_schema as schema
from ...ops.values import INT32_MAX, INT32_MIN
from .instructions import Arg, Operation, Value

Range = tuple[int, int]
INT32: Range = (INT32_MIN, INT32_MAX)

_OF_DTYPE: dict[schema.ScalarType, Range] = {
    schema.ScalarType.BOOL: (0, 1),
    schema.ScalarType.BYTE: (0, 255),
    schema.ScalarType.CHAR: (-128, 127),
    schema.ScalarType.SHORT: (-(2**15), 2**15 - 1),
    schema.ScalarType.INT: INT32,
}
# Results that are elements of the operands.
_MOVES = frozenset(
    [
        "view_copy",
        "et_view",
        "clone",
        "alias_copy",
        "lift_fresh_copy",
        "detach_copy",
        "expand_copy",
        "permute_copy",
        "transpose_copy",
        "t_copy",
        "squeeze_copy",
        "unsqueeze_copy",
        "select_copy",
        "slice_copy",
        "split_copy",
        "split_with_sizes_copy",
        "unbind_copy",
        "cat",
        "stack",
        "repeat",
        "flip",
        "roll",
        "gather",
        "index",
        "index_select",
        "index_put",
        "index_copy",
        "index_fill",
        "scatter",
        "slice_scatter",
        "select_scatter",
        "masked_fill",
        "masked_scatter",
        "where",
        "maximum",
        "minimum",
        "amax",
        "amin",
        "max",
        "min",
        "clamp",
        "copy",
        "copy_",
        "unfold_copy",
        "diagonal_copy",
        "as_strided_copy",
        "tril",
        "triu",
        "constant_pad_nd",
        "sort",
        "topk",
        "full",
        "full_like",
        "fill",
        "scalar_tensor",
        "_to_copy",
        "_to_dim_order_copy",
        "_clone_dim_order",
        "relu",
        "take",
        "embedding",
        "median",
        "mode",
        "cummax",
        "cummin",
        "unsafe_index",
        "repeat_interleave",
        "reflection_pad1d",
        "reflection_pad2d",
        "replication_pad1d",
        "replication_pad2d",
        "narrow_copy",
    ]
)
_BITWISE = frozenset({"bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "logical_not"})
# Results that are positions along the first operand's dimensions, in whichever output holds integers of no operand.
_POSITIONS = frozenset(
    [
        "argmax",
        "argmin",
        "max",
        "min",
        "sort",
        "argsort",
        "topk",
        "median",
        "mode",
        "cummax",
        "cummin",
        "max_pool2d_with_indices",
    ]
)


def fits(values: Sequence[Range | None]) -> bool:
    """Whether all results certainly fit into 32 bits."""
    return all(r is not None and r[0] >= INT32_MIN and r[1] <= INT32_MAX for r in values)


class Ranges:
    """Bounds of the 64-bit integers of one method. ``constant``: the elements of a constant."""

    def __init__(self, constant: Callable[[Value], np.ndarray]) -> None:
        self._constant = constant
        self._known: dict[Value, Range | None] = {}

    def of(self, arg: Arg) -> Range | None:
        """Bounds of a value or number; None if it is no integer."""
        if isinstance(arg, bool | int):
            return (int(arg), int(arg))
        if isinstance(arg, float):
            return (int(arg), int(arg)) if arg.is_integer() else None
        if not isinstance(arg, Value):
            return None
        tensor = arg.tensor
        if tensor is None:
            return INT32
        if tensor.scalar_type is not schema.ScalarType.LONG:
            return _OF_DTYPE.get(tensor.scalar_type)
        if arg not in self._known and arg.constant:
            array = self._constant(arg)
            self._known[arg] = (int(array.min()), int(array.max())) if array.size else (0, 0)
        return self._known.get(arg, INT32)

    def results(self, operation: Operation) -> list[Range | None]:
        """Bounds of those results of an operation that are 64-bit integers."""
        wide = [v for v in operation.results if _is_long(v)]
        found = self._result(operation) if wide else None
        return [found if len(wide) == 1 or found is None else _joined([found, _positions(operation)]) for _ in wide]

    def note(self, operation: Operation, found: Sequence[Range | None]) -> None:
        """Remember what ``results`` said."""
        wide = [v for v in operation.results if _is_long(v)]
        self._known.update(zip(wide, (r if r is None or fits([r]) else INT32 for r in found), strict=True))

    def _result(self, operation: Operation) -> Range | None:
        stem = operation.name.partition("::")[2]
        args = operation.args
        if stem in _POSITIONS and not any(map(_is_long, operation.inputs)):
            return _positions(operation)
        if stem in _MOVES:
            # Sizes, dims and indices are no operands, but wider bounds do no harm.
            operands = [a for a in _flat(args) if not isinstance(a, Value) or _is_integer(a)]
            if any(isinstance(a, Value) and not _is_integer(a) for a in _flat(args[:1])):
                return None  # a cast from floats
            found = _joined([self.of(a) for a in operands if a is not None])
            return _joined([found, _positions(operation)]) if stem in _POSITIONS else found
        if stem in _BITWISE:
            return INT32 if fits([self.of(a) for a in operation.inputs]) else None
        rule = _ARITHMETIC.get(stem)
        operands = [self.of(a) for a in args if not isinstance(a, list | str) and a is not None]
        if rule is None or any(r is None for r in operands):
            return None
        return rule(operation, *operands)


def _is_long(value: Value) -> bool:
    return value.tensor is not None and value.tensor.scalar_type is schema.ScalarType.LONG


def _is_integer(value: Value) -> bool:
    return value.tensor is None or value.tensor.scalar_type in (*_OF_DTYPE, schema.ScalarType.LONG)


def _flat(args: Sequence[Arg]) -> list[Any]:
    return [item for arg in args for item in (_flat(arg) if isinstance(arg, list) else [arg])]


def _joined(ranges: Sequence[Range | None]) -> Range | None:
    known = [r for r in ranges if r is not None]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else None


def _size(operation: Operation) -> int:
    """The number of elements of the first operand."""
    tensor = operation.inputs[0].tensor if operation.inputs else None
    return math.prod(tensor.sizes) if tensor is not None else 1


def _positions(operation: Operation) -> Range:
    return (0, max(_size(operation) - 1, 0))


def _corners(fn: Callable[[int, int], int], a: Range, b: Range) -> Range:
    found = [fn(x, y) for x, y in product(a, b)]
    return (min(found), max(found))


def _sum(operation: Operation, x: Range, *rest: Range) -> Range:
    count = _size(operation)
    return (min(x[0] * count, 0), max(x[1] * count, 0))


def _scaled(operation: Operation, a: Range, b: Range, sign: int, alpha: Range = (1, 1)) -> Range:
    scaled = _corners(lambda x, y: sign * x * y, b, alpha)
    return (a[0] + scaled[0], a[1] + scaled[1])


def _arange(operation: Operation, *given: Range) -> Range:
    """From the start on, by steps, as many as the result has elements."""
    start, step = (given[0], given[2]) if len(given) > 2 else (given[0], (1, 1)) if len(given) > 1 else ((0, 0), (1, 1))
    tensor = operation.outputs[0].tensor
    count = max(tensor.sizes[0] - 1, 0) if tensor is not None and tensor.sizes else 0
    ends = _corners(lambda x, y: x + y * count, start, step)
    return (min(start[0], ends[0]), max(start[1], ends[1]))


def _at_most(operation: Operation, a: Range, *rest: Range) -> Range:
    """Quotients and remainders are no larger than what is divided, or than the divisor."""
    largest = max(abs(n) for r in (a, *rest[:1]) for n in r)
    return (-largest, largest)


_ARITHMETIC: dict[str, Callable[..., Range]] = {
    "add": lambda o, a, b, *alpha: _scaled(o, a, b, 1, *alpha),
    "sub": lambda o, a, b, *alpha: _scaled(o, a, b, -1, *alpha),
    "rsub": lambda o, a, b, *alpha: _scaled(o, b, a, -1, *alpha),
    "mul": lambda o, a, b: _corners(lambda x, y: x * y, a, b),
    "neg": lambda o, a: (-a[1], -a[0]),
    "abs": lambda o, a: (0, max(abs(a[0]), abs(a[1]))),
    "sign": lambda o, a: (-1, 1),
    "sum": _sum,
    "cumsum": _sum,
    "count_nonzero": lambda o, *rest: _positions(o),
    "arange": _arange,
    "div": _at_most,
    "floor_divide": _at_most,
    "remainder": _at_most,
    "fmod": _at_most,
    "bucketize": lambda o, *rest: INT32,
    "searchsorted": lambda o, *rest: INT32,
    "zeros": lambda o, *rest: (0, 1),
    "zeros_like": lambda o, *rest: (0, 1),
    "ones": lambda o, *rest: (0, 1),
    "ones_like": lambda o, *rest: (0, 1),
    "empty": lambda o, *rest: (0, 1),
    "new_zeros": lambda o, *rest: (0, 1),
}
