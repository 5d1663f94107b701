"""What tells calls of a graph apart but for which tensors they read: layers are alike, and looked at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..ops.values import SymInt, Tensor
from .build import Graph, GraphValue, OpCall
from .fusion.dataflow import Dataflow


class Structure:
    """Numbers of values: equal ones are computed alike of the same constants and live values.

    ``maker``: the call that computes a value of nothing but such.
    """

    def __init__(self, graph: Graph, flow: Dataflow, maker: Callable[[GraphValue], OpCall | None]) -> None:
        self._graph, self._flow, self._maker = graph, flow, maker
        self._numbers: dict[object, int] = {}
        self._known: dict[int, int] = {}

    def of(self, value: GraphValue) -> int:
        """The number of a value that ``maker`` knows."""
        return self._of(value, {}, {}, {})

    def of_call(self, call: OpCall, roles: Mapping[int, str]) -> int:
        """The number of what a call does to tensors that play ``roles``, by id."""
        return self._number((call.name, *(self._of(arg, {}, roles, {}) for arg in call.args[:-1])))

    def of_value(self, out: Tensor, calls: Iterable[OpCall], roles: Mapping[int, str]) -> int:
        """The number of what ``calls`` make of tensors that play ``roles``."""
        return self._of(out, {value.id: call for call in calls for value in call.writes}, roles, {})

    def _of(self, arg: Any, makers: Mapping[int, OpCall], roles: Mapping[int, str], seen: dict[int, int]) -> int:
        if isinstance(arg, list):
            return self._number(("list", *(self._of(item, makers, roles, seen) for item in arg)))
        if not isinstance(arg, Tensor | SymInt):
            return self._number((type(arg).__name__, arg))
        inner = arg.id in makers or arg.id in roles
        if arg.id in seen or (arg.id in self._known and not inner):
            return seen[arg.id] if arg.id in seen else self._known[arg.id]
        maker = makers.get(arg.id) or self._maker(arg)
        dims = (arg.dtype, arg.max_dims) if isinstance(arg, Tensor) else ()
        if arg.id in roles:
            found = self._number((roles[arg.id], *dims))
        elif maker is not None:
            made = tuple(self._of(each, makers, roles, seen) for each in maker.args[:-1])
            found = self._number((maker.name, maker.writes.index(arg), *dims, *made))
        elif isinstance(arg, Tensor) and self._flow.is_constant(arg):
            found = self._number((self._graph.constants[self._flow.root(arg).id].key, *dims))
        else:
            found = self._number(("value", arg.id))
        (seen if inner else self._known)[arg.id] = found
        return found

    def _number(self, key: object) -> int:
        return self._numbers.setdefault(key, len(self._numbers))
