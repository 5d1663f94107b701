"""Whether an operator can be planned, asked without a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..errors import Error
from ..gpu.capabilities import Features, Limits
from ..ops.plan import Planner, Planning
from ..ops.registry import Op
from ..ops.values import LiveSymInt, LiveTensor, SymInt, Tensor

# What a plan function runs into when it is handed what it does not expect.
_ARGUMENT_ERRORS = (TypeError, AttributeError, ValueError, IndexError, KeyError, ArithmeticError, AssertionError)


def refusal(op: Op, args: Sequence[Any], set_to: dict[int, int] | None = None) -> str | None:
    """Why ``op`` cannot be planned with these values of a graph, at their maximum dims; None if it can.

    ``set_to`` takes what live integers are set to, by id.
    """
    host_inputs = frozenset(tensor.id for tensor in tensors(args))
    planning = Planning(Features.none(), Limits.floor(), host_inputs=host_inputs)
    try:
        planner = Planner(planning, building=True, may_alias=True)
        planner.plan(op, [_stand_in(arg) for arg in args])
        if set_to is not None:
            set_to |= {symint.id: value for symint, value in planner.result.symints}
    except Error as error:
        return str(error)
    except _ARGUMENT_ERRORS as error:
        return f"its arguments do not fit the operator ({error})"
    return None


def mapped(arg: Any, change: Callable[[Any], Any]) -> Any:
    """An argument with other values in the place of its tensors and live integers, those in lists too."""
    if isinstance(arg, list):
        return [mapped(item, change) for item in arg]
    return change(arg) if isinstance(arg, Tensor | SymInt) else arg


def tensors(args: Sequence[Any]) -> Iterator[Tensor]:
    """The tensors among arguments, those in lists too."""
    for arg in args:
        if isinstance(arg, list):
            yield from tensors(arg)
        elif isinstance(arg, Tensor):
            yield arg


def _stand_in(arg: Any) -> Any:
    """An argument that planning may resize and set."""
    return mapped(arg, lambda v: LiveTensor(v) if isinstance(v, Tensor) else LiveSymInt(v))
