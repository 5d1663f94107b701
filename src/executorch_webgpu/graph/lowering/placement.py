"""Where each operation runs, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import Error
from ...format import program_schema as schema
from ...ops.bounds import Range
from ...ops.registry import Op, is_a
from ...ops.values import SymInt, Tensor
from ...portable.dtypes import dtype_name
from ...portable.names import arguments, operator_of
from ..casts import HALVES
from ..refusal import mapped, refusal, tensors
from .instructions import Operation, Value
from .ranges import Ranges, fits
from .values import GraphValues

COPIES = frozenset({"aten::copy", "aten::copy_"})
LOWERINGS = ("all", "delegates")
_TO_HOST = frozenset({"aten::_local_scalar_dense", "aten::item"})


@dataclass(frozen=True)
class Placement:
    """Where an operation runs: on the device as a call of ``op``, or on the host for want of one. ``why`` says it."""

    on_device: bool
    why: str
    op: Op | None = None


class Placer:
    """Places the operations of one method, in order. ``lower``: one of ``LOWERINGS``.

    ``given``: the integer tensors that the caller gives, which the host can read before a step; ``bounds``: what they
    hold, if the caller says so.
    """

    def __init__(self, values: GraphValues, lower: str, given: frozenset[Value], bounds: Range | None = None) -> None:
        self._values = values
        self._lower = lower
        self._given = given
        self._ranges = Ranges(values.array, {} if bounds is None else dict.fromkeys(given, bounds))

    def place(self, operation: Operation) -> Placement:
        """Where an operation runs; those before it have been placed."""
        if operation.delegate is not None:
            return Placement(True, "delegated")
        op = operator_of(operation.name, operation.overload, len(operation.args))
        if self._lower == "delegates":
            return Placement(False, "not delegated, and only delegates are lowered", op)
        reason = self._reason(operation, op)
        return Placement(reason is None, reason or "lowered", op)

    def _reason(self, operation: Operation, op: Op | None) -> str | None:
        """Why an operation cannot run on the device; None if it can."""
        if operation.name in _TO_HOST:
            (x, *_) = operation.inputs
            self._ranges.note(operation, [])
            return None if x in self._given and op is not None else "the host needs the number"
        if op is None and operation.name not in COPIES:
            return "there is no kernel for it on the device"
        for value in (*operation.inputs, *operation.results):
            if value.tensor is not None and self._values.dtype(value) is None:
                return f"the device does not compute with {dtype_name(value.tensor)}"
        found = self._ranges.results(operation)
        self._ranges.note(operation, found)
        if not fits(found) or self._ranges.unbounded(operation):
            return "its 64-bit integers may need more than 32 bits"
        return None if op is None else self._refusal(op, operation)

    def _refusal(self, op: Op, operation: Operation) -> str | None:
        """Why the operator does not take these arguments."""
        try:
            args = self._values.args(stated_arguments(op, operation.args))
            outs = [self._values.of(v) for v in operation.outputs]
        except Error as error:
            return str(error)
        args.append(outs if op.kinds[-1] not in (Tensor, SymInt) else outs[0])
        for place, (kind, arg) in enumerate(zip(op.kinds, args, strict=True)):
            if not is_a(kind, arg) and isinstance(arg, float) and arg.is_integer():
                args[place] = int(arg)
            if not is_a(kind, args[place]):
                return f"on the device, its argument {op.parameters[place]} cannot be {arg!r}"
        most: dict[int, int] = {}
        found = refusal(op, args, most)
        if found is not None and any(_is_half(arg) for arg in args):
            found = refusal(op, [_widened(arg) for arg in args], most)
        for value, out in zip(operation.outputs, outs, strict=True):
            if out.id in most:  # graphs that are given it are planned for the largest one
                self._values.bind(value, SymInt(out.id, most[out.id]))
        return found


def stated_arguments(op: Op, given: Sequence[Any]) -> list[Any]:
    """The inputs of a call of ``op``. A negative number beside uint8 is what that wraps it to, as in torch."""
    args = arguments(op, given)
    places = [op.parameters.index(name) for name in op.promoted]
    tensors = [args[place].tensor for place in places if isinstance(args[place], Value)]
    if tensors and all(t is not None and t.scalar_type is schema.ScalarType.BYTE for t in tensors):
        for place in places:
            if type(args[place]) is int and args[place] < 0:
                args[place] %= 256
    return args


def _widened(arg: Any) -> Any:
    """float32 in the place of the 16-bit floats that casts will widen."""
    return mapped(arg, lambda v: Tensor(v.id, "float32", v.max_dims, v.constant) if _is_half(v) else v)


def _is_half(arg: Any) -> bool:
    return any(t.dtype in HALVES for t in tensors([arg]))
