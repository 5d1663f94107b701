"""The table of operators: name in a program -> plan function and reference.

An operator is one pure plan function. It is called with the planner and the call's arguments, outputs last, checks
them, sizes its outputs and names the kernels to run. The same function serves at load (maximum dims) and at every
change of live dims. Its NumPy float64 ``reference`` states the meaning and is the oracle of the tests.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import KernelError

PlanFunction = Callable[..., None]
Reference = Callable[..., Any]


@dataclass(frozen=True)
class Op:
    """One operator.

    ``parameters`` are the argument names of the plan function, without the planner; the last one is the output
    (a tensor, a SymInt, or a list of tensors). ``mutates`` names the arguments that it writes besides.
    ``reference(*inputs)`` takes and returns NumPy arrays and numbers, writes ``mutates`` in place, and answers with
    the output, or a tuple of them.
    """

    name: str
    plan: PlanFunction
    reference: Reference
    parameters: tuple[str, ...]
    mutates: tuple[str, ...] = ()


_OPS: dict[str, Op] = {}


def op(*names: str, reference: Reference, mutates: tuple[str, ...] = ()) -> Callable[[PlanFunction], PlanFunction]:
    """Register a plan function under every name that programs use for it."""

    def register(plan: PlanFunction) -> PlanFunction:
        parameters = tuple(inspect.signature(plan).parameters)[1:]
        if unknown := set(mutates) - set(parameters):
            raise KernelError(f"operator {names[0]} says that it mutates {sorted(unknown)}, which it does not take")
        for name in names:
            if name in _OPS:
                raise KernelError(f"operator {name} is registered twice")
            _OPS[name] = Op(name, plan, reference, parameters, mutates)
        return plan

    return register


def find(name: str) -> Op | None:
    """The operator of that name, or None."""
    return _OPS.get(name)


def names() -> tuple[str, ...]:
    """All operator names, sorted."""
    return tuple(sorted(_OPS))
