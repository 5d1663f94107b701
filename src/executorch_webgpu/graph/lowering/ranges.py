"""Bounds of integers, which are 64 bits wide in a program and 32 on the device.

An operator on 64-bit integers may run on the device only if its results certainly fit: the sum of a mask does, a hash
does not. What comes from outside a graph is looked at when it is handed in, so it fits, or the call is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...format import program_schema as schema
from ...ops.bounds import (
    ARITHMETIC,
    BITWISE,
    COUNTS,
    INDEXED,
    MOVES,
    POSITIONS,
    SUMS_IF_ASKED,
    ZERO_POINTS,
    Range,
    joined,
)
from ...ops.values import INT32_MAX, INT32_MIN
from .elements import NUMBER
from .instructions import Arg, Operation, Value

INT32: Range = (-INT32_MAX, INT32_MAX)  # but for the one number whose negative does not fit

_OF_DTYPE: dict[schema.ScalarType, Range] = {
    schema.ScalarType.BOOL: (0, 1),
    schema.ScalarType.BYTE: (0, 255),
    schema.ScalarType.CHAR: (-128, 127),
    schema.ScalarType.SHORT: (-(2**15), 2**15 - 1),
    schema.ScalarType.INT: INT32,
}

COPIES = frozenset({"copy", "copy_"})
SIZE = "sym_size"

# A cast of floats saturates on the device. What else than an overflow would be as large is no position or count.
FROM_FLOATS: Range = (-(2**30), 2**30)


def fits(values: Sequence[Range | None]) -> bool:
    """Whether all results certainly fit into 32 bits."""
    return all(r is not None and r[0] >= INT32_MIN and r[1] <= INT32_MAX for r in values)


class Ranges:
    """Bounds of the 64-bit integers of one method. ``constant``: the elements of a constant.

    ``given``: bounds of tensors that the caller gives, and so of the numbers taken out of them.
    """

    def __init__(self, constant: Callable[[Value], np.ndarray], given: Mapping[Value, Range] | None = None) -> None:
        self._constant = constant
        self._known: dict[Value, Range | None] = dict(given or {})

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
            return self._known.get(arg, INT32)
        if tensor.scalar_type is not schema.ScalarType.LONG:
            return self._known.get(arg) or _OF_DTYPE.get(tensor.scalar_type)
        if arg not in self._known and arg.constant:
            array = self._constant(arg)
            self._known[arg] = (int(array.min()), int(array.max())) if array.size else (0, 0)
        return self._known.get(arg, INT32)

    def results(self, operation: Operation) -> list[Range | None]:
        """Bounds of those results of an operation that are 64-bit integers."""
        wide = [v for v in operation.results if _is_long(v)]
        found = self._result(operation) if wide else None
        return [found if len(wide) == 1 or found is None else joined([found, _positions(operation)]) for _ in wide]

    def note(self, operation: Operation, found: Sequence[Range | None]) -> None:
        """Remember what ``results`` said."""
        wide = [v for v in operation.results if _is_long(v)]
        self._known.update(zip(wide, (r if fits([r]) else None for r in found), strict=True))
        number = operation.outputs[0] if operation.outputs else None
        if number is None:
            return
        if operation.name == NUMBER:
            self._known[number] = self.of(operation.args[0])
        elif operation.stem == SIZE and isinstance(x := operation.args[0], Value) and x.tensor is not None:
            self._known[number] = (0, max(x.tensor.sizes, default=0))
        elif number.tensor is not None and number.tensor.scalar_type is schema.ScalarType.INT:
            bounds = self._result(operation)
            self._known[number] = bounds if fits([bounds]) else None

    def unbounded(self, operation: Operation) -> bool:
        """Whether it computes with integers that may need more than 32 bits; positions that are too large are wrong."""
        held = operation.inputs[:1] if operation.stem in INDEXED else operation.inputs
        return not fits([self.of(v) for v in held if _is_long(v)])

    def _result(self, operation: Operation) -> Range | None:
        stem = operation.stem
        args = operation.args
        if stem in COPIES:  # all of the first argument is overwritten
            return self.of(args[1])
        if stem in COUNTS or (stem in POSITIONS and not any(map(_is_long, operation.inputs))):
            return _positions(operation)
        if stem in ZERO_POINTS:
            return joined([_OF_DTYPE[schema.ScalarType.CHAR], *((a, a) for a in args if type(a) is int)])
        if stem in MOVES and any(arg is True or isinstance(arg, str) for arg in args if stem in SUMS_IF_ASKED):
            return None
        if stem in MOVES:
            # Sizes, dims and indices are no operands, but wider bounds do no harm.
            operands = [a for a in _flat(args) if not isinstance(a, Value) or _is_integer(a)]
            if any(isinstance(a, Value) and not _is_integer(a) for a in _flat(args[:1])):
                return FROM_FLOATS
            bounds = [self.of(a) for a in operands if a is not None]
            if stem == "clamp" and len(bounds) == 3 and None not in bounds[1:]:
                return joined(bounds[1:])
            if None in bounds:
                return None
            found = joined(bounds)
            return joined([found, _positions(operation)]) if stem in POSITIONS else found
        if stem in BITWISE:
            return INT32 if fits([self.of(a) for a in operation.inputs]) else None
        rule = ARITHMETIC.get(stem)
        operands = [self.of(a) for a in args if not isinstance(a, list | str) and a is not None]
        if rule is None or any(r is None for r in operands):
            return None
        return rule(_count(operation.inputs), _count(operation.outputs), *(r for r in operands if r is not None))


def _is_long(value: Value) -> bool:
    return value.tensor is not None and value.tensor.scalar_type is schema.ScalarType.LONG


def _is_integer(value: Value) -> bool:
    return value.tensor is None or value.tensor.scalar_type in (*_OF_DTYPE, schema.ScalarType.LONG)


def _flat(args: Sequence[Arg]) -> list[Any]:
    return [item for arg in args for item in (_flat(arg) if isinstance(arg, list) else [arg])]


def _count(values: Sequence[Value]) -> int:
    """The most elements that the first of some values has."""
    tensor = values[0].tensor if values else None
    return math.prod(tensor.sizes) if tensor is not None else 1


def _positions(operation: Operation) -> Range:
    """How many elements any of its inputs has, at most."""
    return (-1, max((_count([value]) for value in operation.inputs), default=1))
