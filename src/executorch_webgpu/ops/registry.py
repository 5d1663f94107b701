"""The table of operators: name in a program -> plan function and reference.

An operator is one pure plan function. It is called with the planner and the call's arguments, outputs last, checks
them, sizes its outputs and names the kernels to run. The same function serves at load (maximum dims) and at every
change of live dims. Its NumPy float64 ``reference`` states the meaning and is the oracle of the tests.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from ..errors import KernelError

PlanFunction = Callable[..., None]
Reference = Callable[..., Any]


@dataclass(frozen=True)
class Op:
    """One operator.

    ``kinds`` are the annotations of the plan function's arguments: what a program may give for each.
    ``parameters`` are the argument names of the plan function, without the planner; the last one is the output
    (a tensor, a SymInt, or a list of tensors). ``mutates`` names the arguments that it writes besides.
    ``reference(*inputs)`` takes and returns NumPy arrays and numbers, writes ``mutates`` in place, and answers with
    the output, or a tuple of them. ``promoted`` names the arguments that torch brings to one dtype before it computes
    element by element. ``steps``: the result jumps where an operand hardly changes, as that of a comparison, so it must
    be computed in the operands' own precision.
    """

    name: str
    plan: PlanFunction
    reference: Reference
    parameters: tuple[str, ...]
    kinds: tuple[Any, ...]
    mutates: tuple[str, ...] = ()
    promoted: tuple[str, ...] = ()
    steps: bool = False


_OPS: dict[str, Op] = {}


def op(
    *names: str,
    reference: Reference,
    mutates: tuple[str, ...] = (),
    promoted: tuple[str, ...] = (),
    steps: bool = False,
) -> Callable[[PlanFunction], PlanFunction]:
    """Register a plan function under every name that programs use for it."""

    def register(plan: PlanFunction) -> PlanFunction:
        parameters = tuple(inspect.signature(plan).parameters)[1:]
        hints = get_type_hints(plan)
        kinds = tuple(hints[name] for name in parameters)
        if unknown := {*mutates, *promoted} - set(parameters):
            raise KernelError(f"operator {names[0]} states traits of {sorted(unknown)}, which it does not take")
        for name in names:
            if name in _OPS:
                raise KernelError(f"operator {name} is registered twice")
            _OPS[name] = Op(name, plan, reference, parameters, kinds, mutates, promoted, steps)
        return plan

    return register


def is_a(kind: Any, value: Any) -> bool:
    """Whether ``value`` can be an argument that is annotated as ``kind``; a bool is an int, and an int a float."""
    if kind is Any:
        return True
    if get_origin(kind) in (Union, UnionType):
        return any(is_a(k, value) for k in get_args(kind))
    if get_origin(kind) is not None:  # a sequence
        (item,) = get_args(kind)
        return isinstance(value, list) and all(is_a(item, v) for v in value)
    if kind in (int, float, bool):
        return isinstance(value, int | float if kind is float else int)
    return value is None if kind is NoneType else isinstance(value, kind)


def find(name: str) -> Op | None:
    """The operator of that name, or None."""
    return _OPS.get(name)


def names() -> tuple[str, ...]:
    """All operator names, sorted."""
    return tuple(sorted(_OPS))
